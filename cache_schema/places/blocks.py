"""An HDF5 file at an address: reads in; blocks fetched together, kept on this machine with a digest each."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from cache_schema.backends.base import StoreReader
from cache_schema.backends.hdf5 import HEX, Hdf5Reader
from cache_schema.errors import CacheError, CorruptStoreError
from cache_schema.places.mirror import Mirror, touch
from cache_schema.places.wire import Wire

BLOCK = 1 << 18
"""Bytes that are fetched and kept at a time."""
BLOCKS_A_REQUEST = 32
IN_MEMORY = 8
DIGEST = 32


class RemoteBlocks:
    """The bytes of a file at an address.

    Parameters
    ----------
    wire, name
        Which file.
    size
        Of the file, bytes.
    tail
        Its last bytes.
    folder
        Where its blocks lie on this machine.
    mirror
        Keeps them.
    """

    def __init__(self, wire: Wire, name: str, size: int, tail: bytes, folder: Path, mirror: Mirror) -> None:
        self.title, self.size = f"{wire.title}/{name}", size
        self._wire, self._name, self._folder, self._mirror = wire, name, folder, mirror
        self._tail, self._end = tail, tail[-HEX:]
        self.failures: dict[int, str] = {}
        self._new: dict[int, bytes] = {}
        self._is_replaced = False
        self._lock = threading.Lock()

    def forget_tail(self) -> None:
        """Let go of the last bytes, once the header was read from them."""
        self._tail = b""

    def need(self, places: Sequence[tuple[int, int]]) -> None:
        """Fetch the blocks that byte ranges lie in, and are not here, together."""
        wanted = sorted({i for start, stop in places if stop > start for i in range(start // BLOCK, -(-stop // BLOCK))})
        runs: list[list[int]] = []
        for i in wanted:
            if self._kept(i) is not None:
                continue
            if runs and runs[-1][-1] == i - 1 and len(runs[-1]) < BLOCKS_A_REQUEST:
                runs[-1].append(i)
            else:
                runs.append([i])
        if runs:
            self._fetch(runs)

    def _fetch(self, runs: list[list[int]]) -> None:
        fetched = self._wire.each(self._run, runs, large=True)
        with self._lock:
            for run, raw in zip(runs, fetched, strict=True):
                for at, i in enumerate(run):
                    self._new[i] = raw[at * BLOCK : (at + 1) * BLOCK]

    def settle(self) -> None:
        """Keep what was fetched, once it is sure that all of it was of one file: one that was replaced meanwhile
        would give blocks of both.
        """
        with self._lock:
            new = dict(self._new)
            if self._is_replaced:
                raise self._replaced()
        if not new:
            return
        end = self._wire.part(self._name, self.size - len(self._end), self.size)
        with self._lock:
            if end != self._end:
                self._is_replaced = True
                raise self._replaced()
        for i, block in new.items():
            self._mirror.write(self._folder / f"{i:06d}", block + hashlib.sha256(block).digest())
        with self._lock:
            for i in new:
                self._new.pop(i, None)

    def _run(self, run: list[int]) -> bytes:
        start, stop = run[0] * BLOCK, min((run[-1] + 1) * BLOCK, self.size)
        raw = self._wire.part(self._name, start, stop)
        if raw is None or len(raw) != stop - start:
            raise self._replaced()
        return raw

    def _replaced(self) -> CorruptStoreError:
        return CorruptStoreError(f"{self.title} was replaced while it was read; run the same command again")

    def _kept(self, i: int) -> bytes | None:
        new = self._new.get(i)
        if new is not None:
            return new
        path = self._folder / f"{i:06d}"
        if not touch(path):
            return None
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        block = raw[:-DIGEST]
        if len(block) != min(BLOCK, self.size - i * BLOCK) or hashlib.sha256(block).digest() != raw[-DIGEST:]:
            path.unlink(missing_ok=True)  # the disk's fault, not the server's: fetched anew
            return None
        return block

    def block(self, i: int) -> bytes:
        """Return a block."""
        kept = self._kept(i)
        while kept is None:
            self._fetch([[i]])
            kept = self._kept(i)
        return kept

    def tail(self, start: int, stop: int) -> bytes | None:
        """Return bytes that are at hand since the file was opened."""
        begin = self.size - len(self._tail)
        return self._tail[start - begin : stop - begin] if begin <= start < stop else None


class RemoteFile(io.RawIOBase):
    """A place in the bytes of a file at an address, for HDF5 to read from.

    Parameters
    ----------
    blocks
        Of the file.
    """

    def __init__(self, blocks: RemoteBlocks) -> None:
        super().__init__()
        self._blocks, self._at = blocks, 0
        self._recent: dict[int, bytes] = {}

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blocks.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read bytes from the place on."""
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self._blocks.size)
        if stop <= start:
            return 0
        raw = self._blocks.tail(start, stop)
        if raw is None:
            try:
                raw = self._read(start, stop)
            except CacheError as error:
                # HDF5 would tell that something cannot be read, and not why: told by whoever called it.
                self._blocks.failures[threading.get_ident()] = str(error)
                raise OSError(str(error)) from error
        view[: len(raw)] = raw
        self._at = stop
        return len(raw)

    def _read(self, start: int, stop: int) -> bytes:
        first, last = start // BLOCK, (stop - 1) // BLOCK
        if last - first > 1:
            self._blocks.need([(start, stop)])
        parts = []
        for i in range(first, last + 1):
            if i not in self._recent:
                self._recent[i] = self._blocks.block(i)
                while len(self._recent) > IN_MEMORY:
                    del self._recent[next(iter(self._recent))]
            parts.append(self._recent[i])
        raw = b"".join(parts)
        return raw[start - first * BLOCK : stop - first * BLOCK]


class RemoteHdf5Reader(StoreReader):
    """Reads an HDF5 store at an address.

    Parameters
    ----------
    path
        See :class:`StoreReader`.
    blocks
        Of the file.
    """

    def __init__(self, path: Path, blocks: RemoteBlocks) -> None:
        super().__init__(path, blocks.title)
        self._blocks = blocks
        self._inner = Hdf5Reader(path, lambda: cast(BinaryIO, RemoteFile(blocks)), blocks.title, blocks.need)

    def header(self) -> dict[str, Any]:
        """Return the verified header."""
        header = self._inner.header()
        self._blocks.settle()
        self._blocks.forget_tail()
        return header

    def signature(self) -> tuple[int, ...]:
        """Return a constant: a remote cache is read as it was when it was opened."""
        return (self._blocks.size,)

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array."""
        self._blocks.failures.pop(threading.get_ident(), None)
        try:
            rows = self._inner.read(name, start, stop)
        except CorruptStoreError as error:
            self._blocks.settle()  # a file that was replaced meanwhile is no damaged one
            told = self._blocks.failures.pop(threading.get_ident(), "")
            if told:
                raise CacheError(told) from error
            raise
        self._blocks.settle()
        return rows

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array."""
        return self._inner.arrays()

    def byte_problems(self) -> list[str]:
        """Raise NotImplementedError: that would fetch all of the file, which pulling the store does as well."""
        raise NotImplementedError(f"{self.title}: pull the store to compare all of its bytes")

    def n_bytes(self) -> int:
        """Return the size of the file."""
        return self._blocks.size
