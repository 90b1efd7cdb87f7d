"""Named model lists: ``@NAME`` in a model list or on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from cache_schema.errors import UserError, nearest
from extract.zoo.cards import derive

_FIELDS = ("group", "source", "source_size", "samples_seen", "family")


def line_for(library: str, name: str, **options: Any) -> str:
    """Return the line of a model list for one model, with the card fields that its name tells.

    Parameters
    ----------
    library, name
        As in `extract.zoo.cards.derive`.
    options
        Further ``key=value`` pairs; they go before what the name tells.
    """
    fields = {key: value for key, value in derive(library, name).items() if value not in (None, "unknown")}
    merged = {**fields, **options}
    ordered = [key for key in merged if key not in _FIELDS] + [key for key in _FIELDS if key in merged]
    return " ".join([f"{library}:{name}", *(f"{key}={merged[key]}" for key in ordered)])


def _all_open_clip() -> list[str]:
    """Return every pretrained pair of the installed open_clip."""
    import open_clip

    return [
        line_for("open_clip", f"{architecture}/{tag}") for architecture, tag in open_clip.list_pretrained()
    ]


def _all_timm_in1k() -> list[str]:
    """Return every pretrained tag of the installed timm that answers in ImageNet's 1,000 classes."""
    import timm
    from timm.models import get_pretrained_cfg

    configs = {name: get_pretrained_cfg(name) for name in timm.list_models(pretrained=True)}
    return [
        line_for("timm", name) for name, config in configs.items() if config and config.num_classes == 1000
    ]


_FILES = ("clip-zero-shot-51", "clip-finetuned-32", "imagenet-127", "clip-zero-shot-84", "clip-finetuned-44")
_UNIONS: Mapping[str, tuple[str, ...]] = {
    "closer-look": ("clip-zero-shot-51", "clip-finetuned-32", "imagenet-127"),
    "holistic": ("clip-zero-shot-84", "clip-finetuned-44", "imagenet-127"),
}
_COMPUTED: Mapping[str, Callable[[], list[str]]] = {
    "all-open-clip": _all_open_clip,
    "all-timm-in1k": _all_timm_in1k,
}
LISTS: tuple[str, ...] = (*_FILES, *_UNIONS, *_COMPUTED)
"""Every name that ``@NAME`` can be."""


def named_list(name: str) -> list[str]:
    """Return a named list's lines, in the grammar of a model list, without comments.

    Parameters
    ----------
    name
        One of `LISTS`, without the ``@``.

    Raises
    ------
    UserError
        There is no such list; the nearest is told.
    """
    if name in _UNIONS:
        return [line for part in _UNIONS[name] for line in named_list(part)]
    if name in _COMPUTED:
        return _COMPUTED[name]()
    if name in _FILES:
        text = files("extract.zoo").joinpath("lists", f"{name}.txt").read_text(encoding="utf-8")
        return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
    raise UserError(
        f"no list @{name}{nearest(name, LISTS)}; the lists are {', '.join('@' + n for n in LISTS)}"
    )
