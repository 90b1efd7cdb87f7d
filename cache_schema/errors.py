"""What can go wrong, as exceptions whose one line names the thing and the mend."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import TypeGuard


class CloserlookError(Exception):
    """Base of every error that the three packages raise on purpose."""


class UserError(CloserlookError, ValueError):
    """Bad input: printed as one line without a traceback, exit code 2."""


class CacheError(CloserlookError):
    """A cache or a store in it cannot be used."""


class UnsealedStoreError(CacheError):
    """The store was not finished; it must be written again."""


class NewerSchemaError(CacheError):
    """The store was written by a newer version than this one can read."""


class CorruptStoreError(CacheError):
    """The bytes on disk are not those that were sealed."""


class StoreExistsError(CacheError, FileExistsError):
    """A published store of that name is there already; stores are never overwritten."""


class StoreNotFoundError(CacheError, KeyError):
    """No store answers to that model and dataset."""

    def __str__(self) -> str:
        """Return the message itself (a KeyError would quote it)."""
        return str(self.args[0]) if self.args else ""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def is_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether an error says that a disk of this machine can take no more, or may not be written to."""
    return isinstance(error, OSError) and error.errno in _FULL


def nearest(name: str, candidates: Iterable[str], *, n: int = 3, told: bool = False) -> str:
    """Return a clause that names the closest candidates, or an empty string.

    Parameters
    ----------
    name
        What the user typed.
    candidates
        The names that exist.
    n
        At most this many are named.
    told
        All candidates are told besides: they are few.

    Examples
    --------
    >>> nearest("resnt50", ["resnet50", "vit_base"])
    '; did you mean resnet50?'
    >>> nearest("bird", ["cat", "dog"], told=True)
    '; there are cat, dog'
    """
    pool = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), pool, n=n, cutoff=0.55)
    meant = f"; did you mean {' or '.join(pool[c] for c in close)}?" if close else ""
    if not told:
        return meant
    return f"{meant} There are {', '.join(pool.values())}" if meant else f"; there are {', '.join(pool.values())}"
