"""Where the weights of a model come from: backbone, training run and checkpoint, so that near-copies are known.

Models of one lineage are nearly copies, so statistics over models count them as one family. Nothing else reads the
lineage, and it is not part of an identity.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_schema.format.records import ModelCard

LEVELS = ("backbone", "run", "checkpoint")
"""Parts of a lineage, from the widest to the narrowest; each lies within the one before."""

# Names of one kind of architecture -> its series; the first rule that matches the beginning decides.
_SERIES: tuple[tuple[str, str], ...] = (
    (r"(coca_|roberta-|mt5-[a-z]+-|xlm-roberta-[a-z]+-|nllb-clip-)", ""),
    (r"(vitamin|ViTamin)", "vitamin"),
    (r"vit_\w*_r\d*_s\d+|vit_\w*resn\w+", "resnet-vit"),
    (r"(ViT|vit_|deit|flexivit|PE-Core|base|large|test_vit)", "vit"),
    (r"(EVA|eva)", "eva"),
    (r"RN\d|((wide_|se|se_|legacy_se|eca|gc|sk|test_)?(resnet|resnext|res2net|resnest|res2next))", "resnet"),
    (r"(tf_|gc_)?(mix|lite)?(efficientnet|mixnet|fbnet|mnasnet|mobilenet|spnasnet|tinynet)", "mobile"),
    (r"(dm_|nf_|eca_|se)?(nfnet|nf_resnet|nf_regnet)", "nfnet"),
    (r"(tf_|legacy_)?(inception|xception)", "inception"),
    (r"(MobileCLIP|fastvit)", "fastvit"),
)
_RESOLUTION = r"(_window[\dto]+)?[_-](\d{3}|\d{3}to\d{3})$"
_FINE_TUNED = re.compile(r"(_ft|_lc)?_in(1|12|2[12])k(_in1k)?(_\d{3})?$")
_CHECKPOINT_WORDS = re.compile(r"(_e\d+|_rewind|_soup|_ft)$")

# Runs of open_clip that go on where another one ended.
_CONTINUED = {
    "convnext_large_d_320:laion2b_s29b_b131k": "convnext_large_d:laion2b_s26b_b102k_augreg",
    "EVA02-L-14:merged2b_s6b_b61k": "EVA02-L-14:merged2b_s4b_b131k",
}
# timm's names of CLIP weights -> the run of open_clip that they were copied or fine-tuned from.
_CLIP_VIT = re.compile(r"vit_(?P<size>[a-z]+?)_patch(?P<patch>\d+)_clip_(quickgelu_)?\d+$")
_CLIP_SIZES = {"base": "B", "large": "L", "huge": "H", "giant": "g", "gigantic": "bigG"}
_LAION_2B = {
    "ViT-B-32": "laion2b_s34b_b79k",
    "ViT-B-16": "laion2b_s34b_b88k",
    "ViT-L-14": "laion2b_s32b_b82k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-g-14": "laion2b_s34b_b88k",
    "ViT-bigG-14": "laion2b_s39b_b160k",
}
_CLIP_CONVNEXT: tuple[tuple[str, str], ...] = (
    (r"convnext_base\.clip_laion2b_augreg", "convnext_base_w:laion2b_s13b_b82k_augreg"),
    (r"convnext_base\.clip_laion2b", "convnext_base_w:laion2b_s13b_b82k"),
    (r"convnext_base\.clip_laiona_augreg", "convnext_base_w_320:laion_aesthetic_s13b_b82k_augreg"),
    (r"convnext_base\.clip_laiona", "convnext_base_w_320:laion_aesthetic_s13b_b82k"),
    (r"convnext_large_mlp\.clip_laion2b", "convnext_large_d:laion2b_s26b_b102k_augreg"),
    (r"convnext_xxlarge\.clip_laion2b", "convnext_xxlarge:laion2b_s34b_b82k_augreg"),
)


def lineage_of(library: str, name: str, source: str) -> str:
    """Return the lineage of a model: ``BACKBONE/RUN/CHECKPOINT``, empty where the name does not show the weights.

    Parameters
    ----------
    library
        ``timm`` or ``open_clip``; of other libraries nothing is known.
    name
        timm: ``arch.tag``; open_clip: ``arch/tag``. Without a tag the weights are not known.
    source
        Training source, part of the backbone's name: the same architecture on other data is another backbone.

    Returns
    -------
    str
        ``BACKBONE`` is a series of architectures and a source; ``RUN`` the training run whose weights the model has or
        started from (epochs, soups, resolutions and fine-tuned versions share it); ``CHECKPOINT`` the weights.

    Examples
    --------
    >>> lineage_of("open_clip", "ViT-B-16/laion400m_e31", "laion-400m")
    'vit:laion-400m/ViT-B-16:laion400m/ViT-B-16:laion400m_e31'
    >>> lineage_of("timm", "vit_base_patch16_clip_384.openai_ft_in1k", "wit")
    'vit:wit/ViT-B-16:openai/vit_base_patch16_clip_384.openai_ft_in1k'
    """
    if name.startswith(("hf-hub:", "local-dir:")) or library not in ("timm", "open_clip"):
        return ""
    architecture, _, tag = name.partition("/" if library == "open_clip" else ".")
    if not tag:
        return ""
    run = _open_clip_run(architecture, tag) if library == "open_clip" else _timm_run(architecture, tag)
    return f"{series_of(architecture)}:{source}/{run}/{name.replace('/', ':')}"


def card_lineage(card: ModelCard) -> str:
    """Return the lineage that a card states, else what its name shows: cards of older stores have none."""
    return card.lineage or lineage_of(card.library, card.name, card.source)


def at_level(lineage: str, level: str) -> str:
    """Return a lineage down to one of ``LEVELS``; one that somebody made up without parts stays as it is.

    Examples
    --------
    >>> at_level("vit:wit/ViT-B-16:openai/ViT-B-16:openai", "run")
    'vit:wit/ViT-B-16:openai'
    """
    return "/".join(lineage.split("/")[: LEVELS.index(level) + 1])


@cache
def series_of(architecture: str) -> str:
    """Return the series of an architecture of either library, without sizes and versions.

    Examples
    --------
    >>> [series_of(name) for name in ("RN50x4", "wide_resnet50_2", "coca_ViT-L-14", "swinv2_base_window8_256")]
    ['resnet', 'resnet', 'vit', 'swin']
    """
    for rule, series in _SERIES:
        found = re.match(rule, architecture)
        if found and series:
            return series
        if found and found.end() < len(architecture):
            return series_of(architecture[found.end() :])
    word = re.match(r"[A-Za-z]+", architecture)
    return re.sub(r"(?<=[a-z]{3})v$|(?<=regnet)[xyvz]$", "", word[0]) if word else architecture


def _open_clip_run(architecture: str, tag: str) -> str:
    while (shorter := _CHECKPOINT_WORDS.sub("", tag)) != tag:
        tag = shorter
    plain = architecture.replace("-quickgelu", "")
    run = f"{plain}:{tag}"
    if run not in _CONTINUED:
        run = f"{re.sub(r'-(?!240)[0-9]{3}$', '', plain)}:{tag}"
    return _CONTINUED.get(run, run)


def _timm_run(architecture: str, tag: str) -> str:
    full = f"{architecture}.{tag}"
    for rule, run in _CLIP_CONVNEXT:
        if re.match(rule, full):
            return run
    clip = _CLIP_VIT.match(architecture)
    if clip and clip["size"] in _CLIP_SIZES:
        tower = f"ViT-{_CLIP_SIZES[clip['size']]}-{clip['patch']}"
        start = re.split(r"_ft_|_augreg", tag)[0]
        return f"{tower}:{_LAION_2B.get(tower, start) if start == 'laion2b' else start}"
    plain = re.sub(_RESOLUTION, "", architecture)
    start = re.sub(r"_\d{3}$", "", tag)
    if "_ft_" in start or "_lc_" in start:
        start = _FINE_TUNED.sub("", start)
    return f"{plain}.{start}"
