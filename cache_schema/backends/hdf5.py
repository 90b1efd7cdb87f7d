"""HDF5: one file per store, with the header as root attribute and again behind the HDF5 data, with a digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.base import StoreFiles
from cache_schema.backends.syncing import sync_file
from cache_schema.backends.zarr_columns import fill_value
from cache_schema.format.schema import FORMAT, MAX_HEADER_BYTES, layout
from cache_schema.format.seal import check_header_size, digest_file
from closerlook_common.errors import CorruptStoreError, UnsealedStoreError

MAGIC = b"closerlook:sealed"
HEX = 64
TAIL = HEX + 16 + len(MAGIC) + HEX
"""Bytes after the header: its SHA-256, its length (16 hexadecimal digits), MAGIC, SHA-256 of all bytes before."""

GUESS = 1 << 16
"""Bytes to read from the end of a file at once; nearly every header is shorter."""


_LENGTH = re.compile(rb"[0-9a-f]{16}")

MARGIN = 1 << 14
"""Disk space to reserve for what HDF5 adds to an array: names, types, fill values."""

CHUNK_MARGIN = 256
"""Disk space to reserve for what HDF5 adds to a chunk: its index entry and its frame."""


class Hdf5Files(StoreFiles):
    """Writes one file in the 1.10 format, whose metadata have checksums of their own.

    A failed write leaves HDF5 objects that crash the process when they are collected. Disk space is therefore
    reserved before each write, so that a full disk raises an error here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: h5py.File | None = None
        self._room = 0

    def _h5(self) -> h5py.File:
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        return self._file

    def begin(self, header: Mapping[str, Any]) -> None:
        """Create the store with a header that has no seal."""
        text = _dump(header)
        reserve_space(self.path, 0, MARGIN)
        # Only this process knows the staged name, and network disks often have no locks.
        self._file = h5py.File(self.path, "w", libver=("v110", "v110"), locking=False)
        self._reserve(len(text))
        self._file.attrs[FORMAT] = text

    def _reserve(self, more: int) -> None:
        """Reserve disk space for some more bytes and for what HDF5 adds to them."""
        needed = self._h5().id.get_filesize() + more + MARGIN
        if needed > self._room:
            reserve_space(self.path, self._room, needed - self._room)
            self._room = needed

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Create an array; return the number of rows in a shard."""
        cut = layout(shape, dtype.itemsize)
        self._reserve(CHUNK_MARGIN * -(-shape[0] // cut.chunk_rows))
        if 0 in shape:
            self._h5().create_dataset(name, shape=shape, dtype=dtype)
            return cut.shard_rows
        self._h5().create_dataset(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(cut.chunk_rows, *shape[1:]),
            fillvalue=fill_value(dtype),
            fletcher32=True,
            **hdf5plugin.Blosc2(cname="zstd", clevel=3, filters=hdf5plugin.Blosc2.BITSHUFFLE),
        )
        return cut.shard_rows

    def write(self, name: str, start: int, block: NDArray[Any]) -> None:
        """Write rows, whole shards at a time."""
        if block.size:
            dataset = self._h5()[name]
            self._reserve(block.nbytes + CHUNK_MARGIN * -(-len(block) // dataset.chunks[0]))
            dataset[start : start + len(block)] = block

    def seal(self, header: Mapping[str, Any]) -> None:
        """Write the sealed header, and append header and digests to the file."""
        text = _dump(header)
        check_header_size(len(text.encode()), self.path)
        self._reserve(len(text))
        self._h5().attrs[FORMAT] = text
        self.close()
        body = text.encode()
        tail = body + hashlib.sha256(body).hexdigest().encode() + f"{len(body):016x}".encode() + MAGIC
        with self.path.open("ab") as file:
            file.write(tail)
        digest = digest_file(self.path).sha256
        with self.path.open("ab") as file:
            file.write(digest.encode())
        sync_file(self.path)

    def close(self) -> None:
        """Close all handles."""
        if self._file is not None:
            with self._file as file:
                self._file = None
                file.flush()
                size = file.id.get_filesize()
            # HDF5 does not cut off the space that was reserved behind its data.
            if self.path.stat().st_size > size:
                os.truncate(self.path, size)


def reserve_space(path: Path, start: int, size: int) -> None:
    """Reserve disk space for a file, which is created if needed; OSError if the disk is full.

    No-op on systems without ``posix_fallocate``.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), start, size)


def _dump(header: Mapping[str, Any]) -> str:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_whole(file: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, fewer only at the end of the file; one ``read`` may return less."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Tail(NamedTuple):
    """The bytes behind the HDF5 data: header and digests."""

    header: str
    header_digest: str
    file_digest: str


def read_tail(file: BinaryIO, path: object) -> Tail:
    """Return the header behind the end of an open file; errors as in :func:`parse_tail`.

    Parameters
    ----------
    file
        Open for reading, seekable.
    path
        What to call the file in an error.
    """

    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return read_whole(file, stop - start)

    return parse_tail(read, file.seek(0, os.SEEK_END), path)


def parse_tail(read: Callable[[int, int], bytes], size: int, path: object) -> Tail:
    """Return the header behind a file's end.

    Parameters
    ----------
    read
        Returns bytes ``start`` to ``stop`` of the file.
    size
        Of the file, bytes.
    path
        What to call the file in an error.

    Raises
    ------
    UnsealedStoreError
        The file does not end like a sealed store.
    CorruptStoreError
        The file does, but its last bytes were changed.
    """
    start = max(0, size - GUESS)
    raw = read(start, size)
    if len(raw) < TAIL or raw[-HEX - len(MAGIC) : -HEX] != MAGIC:
        raise UnsealedStoreError(f"{path} was never sealed, or its end is cut off; delete it and write it again")
    length_at = len(raw) - HEX - len(MAGIC) - 16
    try:
        digits = raw[length_at : length_at + 16]
        if not _LENGTH.fullmatch(digits):
            raise ValueError("its length is not a number")
        length = int(digits, 16)
        begin = size - TAIL - length
        if begin < 0 or length > MAX_HEADER_BYTES:
            raise ValueError("its length does not fit a header")
        if begin < start:
            raw = read(begin, size)
        end = len(raw) - TAIL
        header = raw[end - length : end].decode()
        header_digest = raw[end : end + HEX].decode()
        file_digest = raw[-HEX:].decode()
    except ValueError as error:
        raise CorruptStoreError(f"{path}: its last bytes were changed") from error
    return Tail(header, header_digest, file_digest)
