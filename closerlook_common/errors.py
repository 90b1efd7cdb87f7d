"""What can go wrong, as exceptions whose one line names the problem and the fix."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import TypeGuard


class CloserlookError(Exception):
    """Base class of all errors that this distribution raises on purpose."""


class UserError(CloserlookError, ValueError):
    """Bad input: printed as one line without a traceback, exit code 2."""


class IncompleteWarning(UserWarning):
    """Some models, datasets or pairs were left out or failed; the others were computed."""


class CacheError(CloserlookError):
    """A cache or a store in it cannot be used."""


class UnsealedStoreError(CacheError):
    """The store was not finished; it must be written again."""


class NewerSchemaError(CacheError):
    """The store was written by a newer version than this one can read."""


class CorruptStoreError(CacheError):
    """The bytes on disk are not those that were sealed."""


class StoreExistsError(CacheError, FileExistsError):
    """A store of that name exists already; stores are never overwritten."""


class StoreNotFoundError(CacheError, KeyError):
    """The cache has no store of that model and dataset."""

    def __str__(self) -> str:
        """Return the message itself (a KeyError would quote it)."""
        return str(self.args[0]) if self.args else ""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def is_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether an error means that a disk of this machine is full or read-only."""
    return isinstance(error, OSError) and error.errno in _FULL


def is_unreadable(error: BaseException) -> bool:
    """Return whether an error means that bytes could not be read; the same input may be readable later."""
    return isinstance(error, (CacheError, OSError))


def nearest(name: object, candidates: Iterable[str], *, n: int = 3, list_all: bool = False) -> str:
    """Return a clause that names the closest candidates, or an empty string.

    Parameters
    ----------
    name
        What the user gave.
    candidates
        The names that exist.
    n
        Largest number of candidates to name.
    list_all
        Also list every candidate (short lists only).

    Examples
    --------
    >>> nearest("resnt50", ["resnet50", "vit_base"])
    '; did you mean resnet50?'
    >>> nearest("bird", ["cat", "dog"], list_all=True)
    '; there are cat, dog'
    """
    pool = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(name).lower(), pool, n=n, cutoff=0.55)
    meant = f"; did you mean {' or '.join(pool[c] for c in close)}?" if close else ""
    if not list_all:
        return meant
    return f"{meant} There are {', '.join(pool.values())}" if meant else f"; there are {', '.join(pool.values())}"
