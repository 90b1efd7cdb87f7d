"""Named model lists: ``@NAME`` in a model list or on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from closerlook_common.errors import UserError, nearest
from extract.libraries import registry

_FIELDS = ("group", "source", "source_size", "samples_seen", "family")


def line_for(library: str, name: str, **options: Any) -> str:
    """Return the line of a model list for one model, with the card fields that its name gives.

    Parameters
    ----------
    library, name
        As in a model list.
    options
        Further ``key=value`` pairs; they win over the fields of the name.
    """
    card = registry.get(library).card_fields(name)
    fields = {key: card[key] for key in _FIELDS if card.get(key) not in (None, "unknown")}
    merged = {**fields, **options}
    ordered = [key for key in merged if key not in _FIELDS] + [key for key in _FIELDS if key in merged]
    return " ".join([f"{library}:{name}", *(f"{key}={merged[key]}" for key in ordered)])


_FILES = ("clip-zero-shot-51", "clip-finetuned-32", "imagenet-127", "clip-zero-shot-84", "clip-finetuned-44")
_UNIONS: Mapping[str, tuple[str, ...]] = {
    "closer-look": ("clip-zero-shot-51", "clip-finetuned-32", "imagenet-127"),
    "holistic": ("clip-zero-shot-84", "clip-finetuned-44", "imagenet-127"),
}


def list_names() -> tuple[str, ...]:
    """Return every name that ``@NAME`` can be."""
    return (*_FILES, *_UNIONS, *_computed())


def _computed() -> dict[str, Callable[[], list[str]]]:
    """Return the lists that libraries make of their own names, each as a function that gives its lines."""

    def lines(library: str, names: Callable[[], list[str]]) -> Callable[[], list[str]]:
        return lambda: [line_for(library, name) for name in names()]

    libraries, _ = registry.every()
    return {name: lines(library.name, models) for library in libraries for name, models in library.lists().items()}


def named_list(name: str) -> list[str]:
    """Return a named list's lines, in the grammar of a model list, without comments.

    Parameters
    ----------
    name
        One of `list_names`, without the ``@``.

    Raises
    ------
    UserError
        There is no such list; the message gives the nearest.
    """
    if name in _UNIONS:
        return [line for part in _UNIONS[name] for line in named_list(part)]
    if name in _FILES:
        text = files("extract.zoo").joinpath("lists", f"{name}.txt").read_text(encoding="utf-8")
        return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
    if (computed := _computed().get(name)) is not None:
        return computed()
    known = list_names()
    raise UserError(f"no list @{name}{nearest(name, known)}; the lists are {', '.join('@' + n for n in known)}")
