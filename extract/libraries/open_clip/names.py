"""Which names open_clip knows: with weights, bare, and those whose config contradicts the weights (QuickGELU)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from cache_schema.format.model_names.card_fields import derive
from cache_schema.format.records import UNKNOWN
from closerlook_common.errors import UserError, nearest
from extract.libraries.base import Entry, Line


@cache
def published() -> tuple[str, ...]:
    """Return the names that have weights, ``arch/tag``; pairs that contradict each other are among them."""
    import open_clip

    return tuple(f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained())


@cache
def bare() -> tuple[str, ...]:
    """Return the configs."""
    import open_clip

    return tuple(open_clip.list_models())


def quick_gelu_mismatch(architecture: str, tag: str) -> bool:
    """Return whether a config's activation is another than the one that the weights were trained with."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    entry = get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture) or {}
    return bool(entry) and bool(entry.get("quick_gelu", False)) != bool(config.get("quick_gelu", False))


def full_name(line: Line) -> str:
    """Return the full name of a line's model: ``arch/tag``, or ``arch`` where the line brings the weights."""
    name = line.name
    if name in published() or (name in bare() and line.brings_weights):
        return name
    if name in bare():
        tags = [other.split("/", 1)[1] for other in published() if other.split("/", 1)[0] == name]
        hint = (
            f"name one of its tags ({', '.join(tags)})" if tags else "it has no published weights: give checkpoint=FILE"
        )
        raise UserError(f"{line.where}: {name} says no weights; {hint}")
    raise UserError(
        f"{line.where}: open_clip has no model {name!r}{nearest(name, (*published(), *bare()))}; a model of your own"
        " needs its configuration too: config=FILE.json, or open_clip:local-dir:FOLDER"
    )


def entries() -> Iterator[Entry]:
    """Yield every pretrained pair of the installed open_clip."""
    import open_clip

    for architecture, tag in open_clip.list_pretrained():
        name = f"{architecture}/{tag}"
        config = open_clip.get_model_config(architecture) or {}
        size = config.get("vision_cfg", {}).get("image_size")
        side = size[0] if isinstance(size, list | tuple) else size
        # open_clip states no licence; most of its weights lie in a timm repository, whose tag does.
        hub = str((open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "")).strip("/")
        licence = _licence_of(hub.removeprefix("timm/")) if hub.startswith("timm/") else UNKNOWN
        yield Entry("open_clip", name, architecture, side, licence, derive("open_clip", name))


def _licence_of(name: str) -> str:
    """Return the licence that timm states for weights of the same name, or ``unknown``."""
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:  # the name is not in this timm
        return UNKNOWN
    return (config.license if config else None) or UNKNOWN
