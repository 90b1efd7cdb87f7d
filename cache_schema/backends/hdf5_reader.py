"""Read HDF5 stores: metadata with ``hdf5_format``, chunks with ``hdf5_chunks``."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.base import StoreReader
from cache_schema.backends.hdf5 import HEX, Tail, read_tail, read_whole
from cache_schema.backends.hdf5_chunks import decode_chunk
from cache_schema.backends.hdf5_format import Hdf5Format
from cache_schema.backends.hdf5_messages import FORMAT_ERRORS, Chunk, Dataset
from cache_schema.backends.resting import Resting
from cache_schema.format.header_rules import check_cost
from cache_schema.format.plain_files import open_plain
from cache_schema.format.schema import BYTES_A_CHUNK, FORMAT
from cache_schema.format.seal import check_header, digest_file, misfit
from cache_schema.format.strict_json import parse_json
from closerlook_common.errors import CorruptStoreError, UnsealedStoreError
from closerlook_common.input_files import LFS_REMEDY, is_lfs_pointer

_ERRORS = (OSError, RuntimeError, *FORMAT_ERRORS)


class _Array(NamedTuple):
    """An array of the file, and the offsets of its chunks."""

    dataset: Dataset
    chunks: list[Chunk]


class Hdf5Reader(StoreReader):
    """Opens the file for every read, so that a thousand open stores hold no handles and no locks.

    Parameters
    ----------
    path
        Of the store.
    title
        What to call it in an error; the path when None.
    """

    def __init__(self, path: Path, title: str | None = None) -> None:
        super().__init__(path, title)
        self._digests: tuple[str, str] | None = None
        self._header = Resting()
        self._arrays: dict[str, _Array] | None = None
        self._of: tuple[int, ...] = ()

    def _binary(self) -> BinaryIO:
        # The file may be a link that the user has put into the cache.
        return open_plain(self.path, title=self.title, follow=True)

    def header(self) -> dict[str, Any]:
        """Return the verified header, after checking that the file's arrays match it."""
        kept = self._header.get()
        if kept is None:
            try:
                with self._binary() as file:
                    if is_lfs_pointer(self.path):
                        raise CorruptStoreError(f"{self.title} {LFS_REMEDY}")
                    tail = read_tail(file, self.title)
                    header = self._checked_header(tail, file.seek(0, os.SEEK_END))
                    # Through the same handle, as the file may be replaced at any time.
                    self._of = self._signature(os.fstat(file.fileno()))
                    self._read_arrays(file, header)  # not kept: most stores of a listing are not read
            except (FileNotFoundError, IsADirectoryError) as error:
                raise UnsealedStoreError(f"{self.title} is not a file") from error
            except FORMAT_ERRORS as error:
                raise CorruptStoreError(f"{self.title} cannot be read, bytes were changed: {error}") from error
            self._header.set(header)
            return header
        return kept

    def _checked_header(self, tail: Tail, size: int) -> dict[str, Any]:
        try:
            parsed = parse_json(tail.header)
        except ValueError as error:
            raise CorruptStoreError(
                f"{self.title}: its header is not a store's JSON; bytes were changed ({error})"
            ) from None
        self._digests = tail.header_digest, tail.file_digest
        header = check_header(parsed, self.title)
        if hashlib.sha256(tail.header.encode()).hexdigest() != tail.header_digest:
            raise CorruptStoreError(f"{self.title}: its header is not the one that was sealed")
        try:
            check_cost(header, size)
        except ValueError as error:
            raise misfit(self.title, error) from None
        return header

    def check(self) -> None:
        """Check the arrays of the file against the seal."""
        self.header()

    def is_checked_by_header(self) -> bool:
        """Return True: header and arrays are in one file."""
        return True

    def _signature(self, status: os.stat_result) -> tuple[int, ...]:
        return status.st_size, status.st_mtime_ns, status.st_ino

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, dict[str, _Array]]]:
        """Open the file, and read its metadata if needed."""
        header = self.header()
        try:
            with self._binary() as file:
                if self._signature(os.fstat(file.fileno())) != self._of:
                    raise CorruptStoreError(f"{self.title} was replaced while it was read; run the same command again")
                if self._arrays is None:
                    self._arrays = self._read_arrays(file, header)
                yield file, self._arrays
        except _ERRORS as error:
            raise CorruptStoreError(f"{self.title} cannot be read, bytes were changed: {error}") from error

    def _read_arrays(self, file: BinaryIO, header: dict[str, Any]) -> dict[str, _Array]:
        """Return the arrays, after checking them against the seal."""
        metadata = Hdf5Format(file)
        assert self._digests is not None
        if hashlib.sha256(metadata.attribute(FORMAT)).hexdigest() != self._digests[0]:
            raise CorruptStoreError(f"{self.title}: the header inside is not the one behind the file's end")
        places, sealed = metadata.links(), header["seal"]["arrays"]
        for name in sorted(places.keys() ^ sealed.keys()):
            state = "in the file, but not sealed" if name in places else "sealed, but missing"
            raise misfit(self.title, f"{name[:80]!r} is {state}")
        arrays, name = {}, ""
        try:
            for name in sorted(places, key=places.__getitem__):  # in the order of the file, for fewer reads
                dataset, chunks = metadata.array(places[name])
                _check_array(dataset, sealed[name])
                arrays[name] = _Array(dataset, chunks)
        except FORMAT_ERRORS as error:
            raise misfit(self.title, f"{name}: {error}") from None
        return arrays

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array."""
        with self._opened() as (file, arrays):
            if name not in arrays:
                raise CorruptStoreError(f"{self.title} holds no array {name}")
            dataset, places = arrays[name]
            try:
                return self._rows(file, dataset, places, start, min(stop, dataset.shape[0]))
            except _ERRORS as error:
                raise CorruptStoreError(
                    f"{self.title}: rows {start} to {stop} of {name} cannot be read, bytes changed: {error}"
                ) from error

    def _rows(self, file: BinaryIO, dataset: Dataset, places: Sequence[Chunk], start: int, stop: int) -> NDArray[Any]:
        out = np.empty((max(0, stop - start), *dataset.shape[1:]), dataset.dtype)
        if dataset.chunks is None or not out.size:
            return out
        rows = dataset.chunks[0]
        for i in range(start // rows, -(-stop // rows)):
            file.seek(places[i].at)
            raw = read_whole(file, places[i].size)
            if len(raw) != places[i].size:
                raise ValueError("the file is shorter than its chunks")
            chunk = decode_chunk(raw, dataset.chunks, dataset.dtype)
            first, last = max(i * rows, start), min((i + 1) * rows, stop)
            out[first - start : last - start] = chunk[first - i * rows : last - i * rows]
        return out

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array."""
        with self._opened() as (_, arrays):
            return {name: (array.dataset.shape, array.dataset.dtype.name) for name, array in sorted(arrays.items())}

    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk."""
        with self._binary() as file:
            sealed = self._digests[1] if self._digests else read_tail(file, self.title).file_digest
            size = file.seek(0, os.SEEK_END)
        digest = digest_file(self.path, stop=size - HEX).sha256
        return [] if digest == sealed else ["its bytes are not those that were sealed"]

    def n_bytes(self) -> int:
        """Return the size on disk."""
        with self._binary() as file:
            return file.seek(0, os.SEEK_END)


@lru_cache(256)
def _name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a type; numpy computes it again on each call."""
    return dtype.name


@lru_cache(256)
def _are_usual(chunks: tuple[int, ...], shape: tuple[int, ...], itemsize: int) -> bool:
    """Return whether chunks are whole rows of an array, and small enough."""
    rows = chunks[0]
    size = rows * itemsize * math.prod(shape[1:])
    return chunks[1:] == shape[1:] and rows <= shape[0] and (rows <= 1 or size <= BYTES_A_CHUNK)


def _check_array(dataset: Dataset, entry: dict[str, Any]) -> None:
    """Check an array of the file against its entry in the seal."""
    dtype = _name_of(dataset.dtype)
    if dtype != entry["dtype"] or list(dataset.shape) != entry["shape"]:
        raise ValueError(f"it is {dtype} {list(dataset.shape)}, sealed was {entry['dtype']} {entry['shape']}")
    if dataset.chunks is not None and not _are_usual(dataset.chunks, dataset.shape, dataset.dtype.itemsize):
        raise ValueError(f"its chunks {list(dataset.chunks)} do not fit {list(dataset.shape)}")
