"""Derive card fields from the name of a timm or open_clip model: group, training source, samples seen, family.

Nothing is imported or downloaded. What a name does not show stays ``unknown`` (or None for a number).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from cache_schema.format.model_names.families import family_of
from cache_schema.format.model_names.lineages import lineage_of
from cache_schema.format.model_names.training_sources import SOURCES
from cache_schema.format.records import UNKNOWN

ZERO_SHOT, FT_1K, FT_12K = "clip-zero-shot", "clip-ft-in1k", "clip-ft-in12k"
SUPERVISED, SELF_SUPERVISED, MORE_DATA = "supervised-in1k", "self-supervised", "more-data"

# Images with captions, by tag; shared by both libraries (timm writes datacompxl for open_clip's datacomp_xl).
# The first rule that is found in the tag decides, so longer names come before those they contain.
_CAPTION_SOURCES: tuple[tuple[str, str], ...] = (
    (r"laion_?aesthetic|laiona", "laion-aesthetic"),
    (r"laion_?80m", "laion-80m"),
    (r"laion_?400m", "laion-400m"),
    (r"laion_?5b", "laion-5b"),
    (r"datacompdr", "datacomp-dr-1b"),
    (r"dfndr2b", "dfn-dr-2b"),
    (r"dfn2b", "dfn-2b"),
    (r"dfn5b", "dfn-5b"),
    (r"datacomp_s_", "datacomp-s"),
    (r"datacomp_m_", "datacomp-m"),
    (r"datacomp_l_", "datacomp-l"),
    (r"datacomp", "datacomp-1b"),
    (r"metaclip2_worldwide", "metaclip-worldwide"),
    (r"metaclip_400m", "metaclip-400m"),
    (r"metaclip_(fullcc|2pt5b)", "metaclip-2.5b"),
    (r"metaclip_altogether", "metaclip-altogether"),
    (r"merged2b", "merged-2b"),
    (r"yfcc15m", "yfcc-15m"),
    (r"cc12m", "cc-12m"),
    (r"webli", "webli"),
    (r"openai", "wit"),
)
_COMMONPOOL = re.compile(r"commonpool_(s|m|l|xl)(?:_(basic|text|image|laion|clip))?_s\d")
_LAION_2B = re.compile(r"laion_?2b")
_SAMPLES = re.compile(r"_s(\d+)([mb])(?:_|$)")
_EPOCHS = re.compile(r"_e(\d+)$")
_OPENAI_EPOCHS = 32


class _Origin(NamedTuple):
    group: str = UNKNOWN
    source: str = UNKNOWN


def derive(library: str, name: str) -> dict[str, Any]:
    """Return the card fields that a model's name shows.

    Parameters
    ----------
    library
        ``timm`` or ``open_clip``.
    name
        timm: ``arch.tag``; open_clip: ``arch/tag``. Without a tag the weights are not known, and only the
        family is.

    Returns
    -------
    dict
        ``group`` (one of `cache_schema.format.records.GROUPS`), ``source``, ``source_size``, ``samples_seen``,
        ``family``, ``lineage``.

    Examples
    --------
    >>> derive("open_clip", "ViT-B-32/laion2b_s34b_b79k")["samples_seen"]
    34000000000
    >>> derive("timm", "vit_base_patch32_clip_224.openai_ft_in12k_in1k")["group"]
    'clip-ft-in12k'
    """
    separator = "/" if library == "open_clip" else "."
    architecture, _, tag = name.partition(separator)
    is_local = name.startswith(("hf-hub:", "local-dir:"))
    if is_local:
        architecture, tag = "", ""
    if library == "open_clip":
        origin = _open_clip(architecture, tag)
    elif library == "timm" and tag:
        origin = _timm(architecture, tag)
    else:
        origin = _Origin()
    return {
        "group": origin.group,
        "source": origin.source,
        "source_size": SOURCES[origin.source],
        "samples_seen": _samples_seen(tag, origin.source) if library == "open_clip" else None,
        "family": family_of(architecture),
        "lineage": lineage_of(library, name, origin.source),
    }


def _open_clip(architecture: str, tag: str) -> _Origin:
    """Every model of open_clip is zero-shot, whatever its weights."""
    if not tag:
        return _Origin(ZERO_SHOT)
    if tag == "meta" and architecture.startswith("PE-"):
        return _Origin(ZERO_SHOT, "perception-encoder")
    if tag in ("v1", "mrl") and architecture.startswith("nllb-"):
        return _Origin(ZERO_SHOT, "laion-coco-nllb")
    return _Origin(ZERO_SHOT, _caption_source(tag))


def _caption_source(tag: str) -> str:
    pool = _COMMONPOOL.match(tag)
    if pool:
        return "-".join(["commonpool", *(part for part in pool.groups() if part)])
    if _LAION_2B.search(tag):
        return "laion-2b"
    return next((source for rule, source in _CAPTION_SOURCES if re.search(rule, tag)), UNKNOWN)


def _samples_seen(tag: str, source: str) -> int | None:
    """Return samples seen from ``_s34b_``, or from epochs times the nominal size of the source."""
    stated = _SAMPLES.search(tag)
    if stated:
        return int(stated[1]) * (10**9 if stated[2] == "b" else 10**6)
    epochs = _EPOCHS.search(tag)
    count = int(epochs[1]) if epochs else _OPENAI_EPOCHS if tag == "openai" else None
    size = SOURCES[source]
    return count * size if count and size else None


# Other pre-training in timm's tags: rule, source, and the group without and with fine-tuning on ImageNet-1k.
# Self-supervised weights that saw ImageNet-1k alone, or were never fine-tuned, are "self-supervised"; whatever
# was fine-tuned after more data is "more-data". The first rule that is found in "arch.tag" decides.
_TIMM_RULES: tuple[tuple[str, str, str, str], ...] = (
    (r"_pe_core_", "perception-encoder", ZERO_SHOT, FT_1K),
    (r"_pe_(lang|spatial)_", "perception-encoder", MORE_DATA, MORE_DATA),
    (r"eva_giant.*\.clip_ft_in1k", "laion-400m", ZERO_SHOT, FT_1K),
    (r"\.pali", "paligemma", MORE_DATA, MORE_DATA),
    (r"\.apple_mclip2_dfndr2b", "dfn-dr-2b", ZERO_SHOT, FT_1K),
    (r"\.apple_mclip", "datacomp-dr-1b", ZERO_SHOT, FT_1K),
    (r"aimv2_.*\.apple_pt", "aimv2", MORE_DATA, MORE_DATA),
    (r"radio", "radio", MORE_DATA, MORE_DATA),
    (r"sapiens", "sapiens", SELF_SUPERVISED, MORE_DATA),
    (r"\.ogvl", "internvl", MORE_DATA, MORE_DATA),
    (r"florence2", "florence-2", MORE_DATA, MORE_DATA),
    (r"\.gemma", "gemma", MORE_DATA, MORE_DATA),
    (r"\.qwen", "qwen-vl", MORE_DATA, MORE_DATA),
    (r"\.deepseek", "deepseek", MORE_DATA, MORE_DATA),
    (r"sam2_", "segment-anything-video", MORE_DATA, MORE_DATA),
    (r"\.sa1b", "segment-anything-1b", MORE_DATA, MORE_DATA),
    (r"^beit3_", "beit3", MORE_DATA, MORE_DATA),
    (r"\.bamboo", "bamboo", MORE_DATA, MORE_DATA),
    (r"lvd1689m", "lvd-1689m", SELF_SUPERVISED, MORE_DATA),
    (r"lvd142m", "lvd-142m", SELF_SUPERVISED, MORE_DATA),
    (r"sat493m", "sat-493m", SELF_SUPERVISED, MORE_DATA),
    (r"m38m_ft_in22k", "merged-38m", MORE_DATA, MORE_DATA),
    (r"m38m", "merged-38m", SELF_SUPERVISED, MORE_DATA),
    (r"m30m", "merged-30m", SELF_SUPERVISED, MORE_DATA),
    (r"\.seer", "instagram-1b", SELF_SUPERVISED, MORE_DATA),
    (r"swsl_ig1b|wsl_ig1b", "instagram-1b", MORE_DATA, MORE_DATA),
    (r"swag", "instagram-3.6b", MORE_DATA, MORE_DATA),
    (r"yfcc100m", "yfcc-100m", MORE_DATA, MORE_DATA),
    (r"_jft_", "jft-300m", MORE_DATA, MORE_DATA),
    (r"miil.*in21k|in21k.*miil", "imagenet-21k-p", MORE_DATA, MORE_DATA),
    (r"in12k", "imagenet-12k", MORE_DATA, MORE_DATA),
    (r"in22k_ijepa|mim_in22k$", "imagenet-21k", SELF_SUPERVISED, MORE_DATA),
    (r"inw?2[12]k", "imagenet-21k", MORE_DATA, MORE_DATA),
    (r"ssld", "imagenet-21k-unlabelled", MORE_DATA, MORE_DATA),
    (r"^beitv2_.*\.in1k_ft_in1k|\.(fc)?mae|dino|ijepa", "imagenet-1k", SELF_SUPERVISED, SELF_SUPERVISED),
    (r"in1k", "imagenet-1k", SUPERVISED, SUPERVISED),
)


def _timm(architecture: str, tag: str) -> _Origin:
    tuned_1k = tag.partition("in1k")[1] != "" and not tag.startswith(("in1k", "mae_in1k"))
    clip = _caption_source(tag)
    if clip != UNKNOWN and not tag.startswith("apple_mclip"):
        group = FT_12K if "in12k" in tag else FT_1K if tuned_1k else ZERO_SHOT
        return _Origin(group, clip)
    full = f"{architecture}.{tag}"
    for rule, source, plain, tuned in _TIMM_RULES:
        if re.search(rule, full):
            return _Origin(tuned if tuned_1k else plain, source)
    return _Origin()
