"""From the names of class folders (or a manifest's label column) to class indices, never from their rank."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

from closerlook_common.errors import UserError, nearest
from extract.classes.spaces import ClassSpace
from extract.classes.unicode_names import composed

LabelKind = Literal["auto", "wnid", "index", "name", "none"]
LABEL_KINDS: tuple[str, ...] = get_args(LabelKind)

_WNID = re.compile(r"n[0-9]{8}")
_INDEX = re.compile(r"[0-9]+")


def looks_like_wnid(name: str) -> bool:
    """Return whether a name has the form of a WordNet id: ``n01440764``."""
    return _WNID.fullmatch(name) is not None


def plain(name: str) -> str:
    """Return a class name without differences of case, underscores, hyphens, spaces and Unicode form."""
    return re.sub(r"[\s_\-]+", " ", composed(name)).strip().casefold()


def by_wnid(names: Iterable[str], space: ClassSpace) -> dict[str, int]:
    """Map those names that are WordNet ids of the space to their index."""
    known = {wnid: index for index, wnid in enumerate(space.wnids or ())}
    return {name: known[name] for name in names if name in known}


def by_index(names: Iterable[str], space: ClassSpace) -> dict[str, int]:
    """Map those names that are whole numbers below the number of classes to that number."""
    return {name: int(name) for name in names if _INDEX.fullmatch(name) and int(name) < len(space.names)}


def by_name(names: Iterable[str], space: ClassSpace) -> dict[str, int]:
    """Map those names that are exactly one class's name (case, ``_``, ``-`` and spaces apart) to its
    index.
    """
    exact = _unique([composed(name) for name in space.names])
    loose = _unique([plain(name) for name in space.names])
    found = {name: exact.get(composed(name), loose.get(plain(name))) for name in names}
    return {name: index for name, index in found.items() if index is not None}


def _unique(names: Collection[str]) -> dict[str, int]:
    """Return name -> index without the names that several classes bear (``missile``, ``sunglasses``)."""
    table: dict[str, int] = {}
    double: set[str] = set()
    for index, name in enumerate(names):
        if table.setdefault(name, index) != index:
            double.add(name)
    return {name: index for name, index in table.items() if name not in double}


_READERS = {"wnid": by_wnid, "index": by_index, "name": by_name}
_SAYS = {"wnid": "WordNet ids", "index": "class indices", "name": "class names"}


def label_map(names: Collection[str], space: ClassSpace, kind: str = "auto", *, where: str = "") -> dict[str, int]:
    """Return the class index of every name.

    Parameters
    ----------
    names
        Folder names, or the values of a manifest's label column.
    space
        The class space that the indices refer to.
    kind
        ``wnid``, ``index``, ``name``; ``auto`` takes the one reading under which *all* names are classes of
        the space.
    where
        What is read, for messages.

    Returns
    -------
    dict of str to int

    Raises
    ------
    UserError
        A name is not a class under the reading asked for; or, with ``auto``, no reading fits all names, or two
        readings fit and give different labels.
    """
    names = sorted(set(names))
    at = f"{where}: " if where else ""
    if kind not in _READERS and kind != "auto":
        raise UserError(f"{at}labels = {kind!r} is not one of {', '.join(LABEL_KINDS)}{nearest(kind, LABEL_KINDS)}")
    tried = {k: read(names, space) for k, read in _READERS.items() if kind in (k, "auto")}
    whole = {k: found for k, found in tried.items() if len(found) == len(names)}
    if not whole:
        best = max(tried, key=lambda k: len(tried[k]))
        raise UserError(at + _misfit(names, space, best, tried[best], kind))
    first = next(iter(whole.values()))
    if any(found != first for found in whole.values()):
        readings = " and as ".join(_SAYS[k] for k in whole)
        raise UserError(
            f"{at}the names can be read as {readings}, with different labels;"
            f" say which: labels = {' or '.join(repr(k) for k in whole)}"
        )
    return first


def _misfit(names: Collection[str], space: ClassSpace, kind: str, found: Mapping[str, int], asked: str) -> str:
    stranger = next(name for name in names if name not in found)
    pool = (space.wnids or ()) if kind == "wnid" else space.names if kind == "name" else ()
    hint = nearest(stranger, pool)
    if not found and asked == "auto":
        return (
            f"{stranger!r} is neither a WordNet id, an index nor a name of class space {space.id}"
            f'{nearest(stranger, space.names)} (classes = "folders" takes the folder names as classes,'
            ' labels = "none" takes the images without labels)'
        )
    doubles = plain(stranger) in {plain(n) for n in space.names} and kind == "name"
    why = "is the name of several classes" if doubles else f"is not among the {_SAYS[kind]}"
    return f"{len(found)} of {len(names)} names are {_SAYS[kind]} of {space.id}, but {stranger!r} {why}{hint}"
