"""Models that a reader has to know of before believing a line: a set was built against them, or they know CLIP."""

from __future__ import annotations

import re
from collections.abc import Mapping

BUILT_AGAINST: Mapping[str, re.Pattern[str]] = {
    "imagenet-a": re.compile(r"(.*/)?(resnet50\.tv_in1k|torchvision:resnet50)(@\d+)?"),
    "imagenet-o": re.compile(r"(.*/)?(resnet50\.tv_in1k|torchvision:resnet50)(@\d+)?"),
}
"""Set -> the models whose errors its images were chosen by (ResNet-50 with torchvision's weights)."""

_FINE_TUNED = ("clip-ft-in1k", "clip-ft-in12k")
# EVA and BEiT v2 learnt to predict CLIP's features, the MobileCLIP towers and RADIO CLIP's answers.
_DISTILLED = re.compile(
    r"(.*/)?(eva02?_\w*\.(m30m|m38m|mim_\w*|in22k)\w*|beitv2_\w*\..*|beit3_\w*\..*|\w*\.apple_mclip\w*"
    r"|vit_\w*radio\w*\..*|tiny_vit_\w*\.dist_\w*|MobileCLIP[^/]*)",
    re.IGNORECASE,
)

CHANCE = "at chance"
AGAINST = "the set was built against it"
FINE_TUNED = "fine-tuned from CLIP"
DISTILLED = "distilled from CLIP"
BEYOND = "beyond the baseline's range"


def mark_of(model: str, lineage: str, group: str, dataset: str) -> str:
    """Return what a reader has to know of a model on a set; empty where there is nothing.

    Parameters
    ----------
    model, lineage, group
        Id of the model, and of its card.
    dataset
        The shifted set.

    Examples
    --------
    >>> mark_of("resnet50.tv_in1k", "", "supervised-in1k", "imagenet-a")
    'the set was built against it'
    >>> mark_of("mine", "", "clip-ft-in1k", "imagenet-r")
    'fine-tuned from CLIP'
    """
    rule = BUILT_AGAINST.get(dataset)
    if rule is not None and (rule.fullmatch(lineage) or rule.fullmatch(model)):
        return AGAINST
    if group in _FINE_TUNED:
        return FINE_TUNED
    if group != "clip-zero-shot" and (_DISTILLED.fullmatch(lineage) or _DISTILLED.fullmatch(model)):
        return DISTILLED
    return ""
