"""HDF5: one file a store, the header as root attribute and again behind the file's end with a digest of all
bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.base import StoreFiles, StoreReader
from cache_schema.backends.zarr_columns import fill_value
from cache_schema.errors import CorruptStoreError, UnsealedStoreError
from cache_schema.schema import FORMAT, layout
from cache_schema.seal import check_header, digest_file
from cache_schema.staging import sync_file

MAGIC = b"closerlook:sealed"
HEX = 64
TAIL = HEX + 16 + len(MAGIC) + HEX
"""Bytes behind the header: its SHA-256, its length (16 hexadecimal digits), MAGIC, SHA-256 of the file so
far."""

GUESS = 1 << 16
"""Read from the file's end in one go; nearly every header is shorter."""


MARGIN = 1 << 14
"""Room on the disk that is kept for what HDF5 itself adds to an array: names, types, what it is filled with."""

CHUNK_MARGIN = 256
"""The same for a chunk: its place in the index, the frame around what is compressed."""


class Hdf5Files(StoreFiles):
    """Writes one file in the 1.10 format, whose metadata have checksums of their own.

    HDF5 does not survive a write that fails: its objects fail again when they are collected, and the process ends in
    a crash. Room on the disk is taken before it writes anything therefore, so that a full disk is met here.
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
        take_room(self.path, 0, MARGIN)
        # Only the owner knows the staged name, and network disks often have no locks.
        self._file = h5py.File(self.path, "w", libver=("v110", "v110"), locking=False)
        self._make_room(len(text))
        self._file.attrs[FORMAT] = text

    def _make_room(self, more: int) -> None:
        """Take room for so many bytes more, and for what comes with them."""
        needed = self._h5().id.get_filesize() + more + MARGIN
        if needed > self._room:
            take_room(self.path, self._room, needed - self._room)
            self._room = needed

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Create an array; returns the rows of a whole write."""
        cut = layout(shape, dtype.itemsize)
        self._make_room(CHUNK_MARGIN * -(-shape[0] // cut.chunk_rows))
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
            self._make_room(block.nbytes + CHUNK_MARGIN * -(-len(block) // dataset.chunks[0]))
            dataset[start : start + len(block)] = block

    def seal(self, header: Mapping[str, Any]) -> None:
        """Replace the header by the sealed one, last of all."""
        text = _dump(header)
        self._make_room(len(text))
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
        """Let go of every handle."""
        if self._file is not None:
            with self._file as file:
                self._file = None
                file.flush()
                size = file.id.get_filesize()
            # HDF5 cuts off what it knows of, not the room that was taken behind that.
            if self.path.stat().st_size > size:
                os.truncate(self.path, size)


def take_room(path: Path, start: int, size: int) -> None:
    """Take room on the disk for a file, which is made where it is not there; OSError where there is none.

    Nothing happens on systems that cannot do so.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), start, size)


def _dump(header: Mapping[str, Any]) -> str:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Tail(NamedTuple):
    """What lies behind the end of the HDF5 data."""

    header: str
    header_digest: str
    file_digest: str


def read_tail(file: BinaryIO, path: object) -> Tail:
    """Read the header behind a file's end.

    Parameters
    ----------
    file
        Open for reading, seekable.
    path
        What to call it in an error.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - GUESS))
    raw = file.read()
    if len(raw) < TAIL or raw[-HEX - len(MAGIC) : -HEX] != MAGIC:
        raise UnsealedStoreError(f"{path} was never sealed, or its end is cut off; delete it and write it again")
    length_at = len(raw) - HEX - len(MAGIC) - 16
    try:
        length = int(raw[length_at : length_at + 16], 16)
        begin = size - TAIL - length
        if begin < start:
            file.seek(max(0, begin))
            raw = file.read()
        end = len(raw) - TAIL
        header = raw[end - length : end].decode()
        header_digest = raw[end : end + HEX].decode()
        file_digest = raw[-HEX:].decode()
    except ValueError as error:
        raise CorruptStoreError(f"{path}: its last bytes were changed") from error
    return Tail(header, header_digest, file_digest)


class Hdf5Reader(StoreReader):
    """Opens the file for every read, so that a thousand stores hold no handle, and no lock on network disks.

    Parameters
    ----------
    path
        Of the store.
    opener
        Opens the file where it is not at ``path``; seekable.
    title
        What to call it in an error; the path when None.
    ahead
        Told the byte ranges that are read next, so that they can be fetched together.
    """

    def __init__(
        self,
        path: Path,
        opener: Callable[[], BinaryIO] | None = None,
        title: str | None = None,
        ahead: Callable[[Sequence[tuple[int, int]]], None] | None = None,
    ) -> None:
        super().__init__(path, title)
        self._opener, self._ahead = opener, ahead
        self._tail: Tail | None = None
        self._trusted = False

    def _binary(self) -> BinaryIO:
        return self.path.open("rb") if self._opener is None else self._opener()

    def _read_tail(self) -> Tail:
        if self._tail is None:
            try:
                with self._binary() as file:
                    tail = read_tail(file, self.title)
            except (FileNotFoundError, IsADirectoryError) as error:
                raise UnsealedStoreError(f"{self.title} is no file") from error
            self._tail = tail
        return self._tail

    def header(self) -> dict[str, Any]:
        """Return the verified header."""
        tail = self._read_tail()
        try:
            header = check_header(json.loads(tail.header), self.title)
        except json.JSONDecodeError as error:
            raise CorruptStoreError(f"{self.title}: its header is no JSON; bytes were changed") from error
        if hashlib.sha256(tail.header.encode()).hexdigest() != tail.header_digest:
            raise CorruptStoreError(f"{self.title}: its header is not the one that was sealed")
        return header

    def signature(self) -> tuple[int, ...]:
        """Return size, time and inode of the file; a constant where it is opened from elsewhere."""
        if self._opener is not None:
            return (0,)
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        try:
            with ExitStack() as stack:
                if self._opener is None:
                    file = stack.enter_context(h5py.File(self.path, "r", locking=False))
                else:
                    file = stack.enter_context(open_object(stack.enter_context(self._opener())))
                if not self._trusted and file.attrs.get(FORMAT) != self._read_tail().header:
                    raise CorruptStoreError(f"{self.title}: the header inside is not the one behind the file's end")
                self._trusted = True
                yield file
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise CorruptStoreError(f"{self.title} cannot be read, bytes were changed: {error}") from error

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array."""
        with self._opened() as file:
            try:
                if self._ahead is not None:
                    self._ahead(chunk_places(file[name], start, stop))
                return np.asarray(file[name][start:stop])
            except (OSError, KeyError, RuntimeError, ValueError) as error:
                raise CorruptStoreError(
                    f"{self.title}: rows {start} to {stop} of {name} cannot be read, bytes changed: {error}"
                ) from error

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array."""
        with self._opened() as file:
            return {name: (tuple(item.shape), item.dtype.name) for name, item in sorted(file.items())}

    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk."""
        tail = self._read_tail()
        digest = digest_file(self.path, stop=self.path.stat().st_size - HEX).sha256
        return [] if digest == tail.file_digest else ["its bytes are not those that were sealed"]

    def n_bytes(self) -> int:
        """Return the size on disk."""
        with self._binary() as file:
            return file.seek(0, os.SEEK_END)


def open_object(file: BinaryIO) -> h5py.File:
    """Return an HDF5 file that is read through a Python object.

    The list of properties is closed here. ``h5py.File`` leaves that to Python: where the file cannot be opened, an
    error that somebody keeps keeps the list, and a list that is open when the process ends brings it down.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    try:
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, file)
        return h5py.File(h5py.h5f.open(b"remote", h5py.h5f.ACC_RDONLY, fapl=access))
    finally:
        access.close()


def chunk_places(dataset: h5py.Dataset, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the byte ranges of the chunks that rows ``start`` to ``stop`` of a dataset lie in."""
    places = []
    if dataset.chunks is not None:
        rows, rest = dataset.chunks[0], (0,) * (dataset.ndim - 1)
        for row in range(start // rows * rows, stop, rows):
            chunk = dataset.id.get_chunk_info_by_coord((row, *rest))
            if chunk.byte_offset is not None:
                places.append((chunk.byte_offset, chunk.byte_offset + chunk.size))
    return places
