"""Open files of a store: only plain files inside its folder, never links, pipes or devices.

A store may come from a stranger. A link in it could lead to any file of this machine; a pipe or a device could block
the reader or fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from closerlook_common.errors import CorruptStoreError

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def open_plain(path: Path, *, title: str = "", follow: bool = False) -> BinaryIO:
    """Open a plain file for unbuffered reading.

    Parameters
    ----------
    path
        Of the file.
    title
        What to call it in an error; the path when empty.
    follow
        Whether the file itself may be a link.

    Raises
    ------
    CorruptStoreError
        The file is a link, a pipe, a device ...
    OSError
        The file is missing, or cannot be read.
    """
    name = title or str(path)
    try:
        handle = os.open(path, _FLAGS | (0 if follow else _NO_LINKS))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptStoreError(f"{name} is a link, which the files of a store never are") from None
        if error.errno == errno.ENXIO:
            raise CorruptStoreError(f"{name} is not a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CorruptStoreError(f"{name} is not a plain file")
    return open(handle, "rb", buffering=0)  # noqa: PTH123  a handle has no path


def read_plain(path: Path, limit: int, *, title: str = "") -> bytes:
    """Return the bytes of a plain file; CorruptStoreError if it is not plain or larger than ``limit`` bytes."""
    with open_plain(path, title=title) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CorruptStoreError(f"{title or path} has {size} bytes, {limit} at most are read")
        return file.read(size + 1)[:size] if size < _PIECE else _read_all(file, size)


_PIECE = 1 << 20


def _read_all(file: BinaryIO, size: int) -> bytes:
    parts = []
    while size > 0 and (part := file.read(min(size, 16 * _PIECE))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def size_inside(folder: Path, name: str, *, title: str = "") -> int:
    """Return the size of a plain file below a folder; refuse links on the way.

    Parameters
    ----------
    folder
        Of the store; may itself be a link.
    name
        Path below it, ``/`` between the parts.
    title
        What to call the folder in an error; the folder when empty.

    Raises
    ------
    CorruptStoreError
        The file or a folder on the way is a link, or the file is not plain.
    OSError
        The file is missing.
    """
    at = str(folder)
    parts = name.split("/")
    for part in parts[:-1]:
        at = f"{at}/{part}"
        if stat.S_ISLNK(os.lstat(at).st_mode):
            raise CorruptStoreError(f"{title or folder}/{name} lies behind a link, which a store never holds")
    status = os.lstat(f"{at}/{parts[-1]}")
    if not stat.S_ISREG(status.st_mode):
        raise CorruptStoreError(f"{title or folder}/{name} is a link or not a plain file")
    return status.st_size
