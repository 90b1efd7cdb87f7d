"""Where a packed dataset's files lie, and which of its splits is meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from closerlook_common.errors import UserError, nearest
from extract.datasets.base import NoSuchLayout

_USUAL = {"train", "val", "validation", "test"}
_WORD = re.compile(r"[^a-z0-9]+")


def choose_split(known: Collection[str], asked: str, preferred: Sequence[str], where: object) -> str:
    """Return the name of one split.

    Parameters
    ----------
    known
        Names of the splits that are there; at least one.
    asked
        What ``split =`` says; empty for nothing. The beginning of a name will do where it fits one alone.
    preferred
        Words that a recipe looks for, best first: ``validation``, ``val``.
    where
        The folder, for messages.

    Raises
    ------
    UserError
        The split asked for is not there, or there are several and nothing says which.
    """
    if asked:
        fitting = [name for name in known if name == asked] or [name for name in known if name.startswith(asked)]
        if len(fitting) == 1:
            return fitting[0]
        there = ", ".join(map(repr, sorted(known)))
        what = "fits several" if fitting else "is not there"
        raise UserError(f"{where}: split = {asked!r} {what} of the splits {there}{nearest(asked, known)}")
    if len(known) == 1:
        only = next(iter(known))
        words = set(_WORD.split(only.lower()))
        if preferred and words & _USUAL and not words & set(preferred):
            raise NoSuchLayout(f"{where} holds the split {only!r} alone; {' or '.join(preferred)} is wanted")
        return only
    for word in preferred:
        fitting = [name for name in known if word in _WORD.split(name.lower())]
        if len(fitting) == 1:
            return fitting[0]
    raise UserError(f"{where} holds several splits; say which: split = {' or '.join(map(repr, sorted(known)))}")


def snapshot(folder: Path) -> Path:
    """Return where the files lie, if ``folder`` is a repository in the hub's cache; else ``folder``."""
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return folder
    place = folder / "snapshots" / revision
    return place if revision and place.is_dir() else folder
