"""Pairs of numbers that go together because one is part of the other, whatever the models do."""

from __future__ import annotations

import re

from analyze.results.quantities import Quantity

_OF_ACCURACY = re.compile(
    r"top\d+|(mean_class|worst_class|multi_label|worst_factor|anchor|macro|balanced)\w*_accuracy|error_ratio|brier\w*"
    r"|nll\w*|d2_\w+|aurc\w*|augrc\w*|achievable_\w*|coverage_at_risk\d+|risk_at_coverage\d+|sac\d+|calibration_gap"
    r"|corruption_error|mean_corruption_error|ece_if_calibrated|factor_accuracy"
)
_OF_CALIBRATION = re.compile(
    r"(?!ece_if_)(?!ece_p$)(ece\w*|mce|ace|smece|ks_error|kuiper_error|classwise_\w*|calibration_gap)"
)
_OF_DETECTION = re.compile(r"auroc|fpr95_\w+|aupr_\w+|eer|partial_auroc\w*")
_KINDS = (
    (_OF_ACCURACY, "holds the accuracy of the same images"),
    (_OF_CALIBRATION, "is another estimate of the calibration of the same images"),
    (_OF_DETECTION, "is another summary of the same scores"),
)
_SAME_IMAGES = {"imagenet-real": "imagenet-val"}
"""Set -> the set whose images it has, with other labels."""


def tied(x: Quantity, y: Quantity) -> str:
    """Return why y goes with x by construction; empty where it need not.

    Accuracies, proper scores and risks of the same images contain one another; so do errors of calibration, and
    summaries of the same OOD scores. Numbers of other images are never tied, however closely they go together.

    Examples
    --------
    >>> tied(Quantity.parse("top1@imagenet-val"), Quantity.parse("brier@imagenet-val"))
    'holds the accuracy of the same images'
    >>> tied(Quantity.parse("top1@imagenet-val"), Quantity.parse("top1@imagenet-a"))
    ''
    """
    if _images(x) != _images(y) or x.variant("factor") != y.variant("factor"):
        return ""
    for kind, reason in _KINDS:
        if kind.fullmatch(x.metric) and kind.fullmatch(y.metric):
            return reason
    return "is the same number" if x.metric == y.metric else ""


def _images(quantity: Quantity) -> str:
    return _SAME_IMAGES.get(quantity.dataset, quantity.dataset)
