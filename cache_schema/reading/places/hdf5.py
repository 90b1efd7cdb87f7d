"""HDF5 stores at an address: the header comes from the file's end, arrays from the whole file, fetched once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cache_schema.backends.hdf5 import HEX, Tail
from cache_schema.backends.hdf5_reader import Hdf5Reader
from cache_schema.format.plain_files import open_plain
from cache_schema.format.seal import digest_file
from cache_schema.reading.places.mirror import touch
from cache_schema.reading.places.wire import Wire
from closerlook_common.errors import CacheError

PART = 16 << 20
"""Bytes per request; earlier parts are kept when a later request fails."""


def fetch_file(wire: Wire, name: str, path: Path, size: int, *, in_parts: bool = True) -> None:
    """Fetch a file part by part, after the bytes that ``path`` holds already.

    Parameters
    ----------
    wire, name
        Which file.
    path
        Where to write it.
    size
        Of the file, bytes.
    in_parts
        False fetches the file in one request, for servers that send only whole files.
    """
    if not in_parts or not _append(wire, name, path, size):
        wire.download(name, path, size)


def _append(wire: Wire, name: str, path: Path, size: int) -> bool:
    """Fetch the missing bytes of a file; return False if the server sends only whole files."""
    with path.open("ab") as file:
        start = file.tell()
        while start < size:
            stop = min(start + PART, size)
            raw = wire.part(name, start, stop)
            if raw is None:
                raise CacheError(f"{wire.title}/{name} is missing")
            if len(raw) > stop - start:
                return False
            file.write(raw)
            start = stop
    return True


def is_sealed(path: Path) -> bool:
    """Return whether a file ends with the digest of all bytes before it."""
    return sealed_digest(path) == digest_file(path, stop=max(0, path.stat().st_size - HEX)).sha256


def sealed_digest(path: Path) -> str:
    """Return the digest that a file ends with."""
    with path.open("rb") as file:
        file.seek(-min(HEX, path.stat().st_size), os.SEEK_END)
        return file.read().decode("latin-1")


class RemoteHdf5Reader(Hdf5Reader):
    """Reads an HDF5 store at an address.

    HDF5 metadata are spread over the file, so the first read of an array fetches all of it.

    Parameters
    ----------
    path
        Where the file is kept on this machine.
    title
        What to call the store in an error.
    size
        Of the file, bytes.
    tail
        The header behind the file's end; None reads it from the whole file.
    fetch
        Fetches the file to ``path``, verified.
    """

    def __init__(self, path: Path, title: str, size: int, tail: Tail | None, fetch: Callable[[], None]) -> None:
        super().__init__(path, title)
        self._size, self._tail, self._fetch = size, tail, fetch
        self._lock = threading.Lock()
        self._is_verified = False
        self._of = (size,)

    def header(self) -> dict[str, Any]:
        """Return the verified header; the arrays are checked when the first of them is read."""
        if self._tail is not None and self._header.get() is None:
            self._header.set(self._checked_header(self._tail, self._size))
        return super().header()

    def _binary(self) -> BinaryIO:
        with self._lock:
            is_here = touch(self.path)  # False if never fetched, or deleted since to free space
            if is_here and not self._is_verified and not self._is_intact():
                self.path.unlink(missing_ok=True)  # damaged on this disk: fetch it again
                is_here = False
            if not is_here:
                self._fetch()
            self._is_verified = True
        return open_plain(self.path, title=self.title, follow=True)

    def _is_intact(self) -> bool:
        return is_sealed(self.path) and (self._tail is None or sealed_digest(self.path) == self._tail.file_digest)

    def _signature(self, status: os.stat_result) -> tuple[int, ...]:
        # The name of the copy holds its digest, so only its time changes, with every use.
        return (status.st_size,)

    def n_bytes(self) -> int:
        """Return the size of the file."""
        return self._size
