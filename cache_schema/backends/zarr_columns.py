"""Read and write the shards of Zarr arrays directly: one file and one index per shard.

What is written is byte for byte what zarr writes. Zarr itself takes one to three milliseconds to open an array, and a
study has fifty thousand small columns; with or without the zarrs pipeline it also reads large arrays with more
processor time than this module does. An array that is laid out in another way is refused: its codecs would be a
stranger's choice. Every chunk is checked before it is decoded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from cache_schema.backends.blosc_blocks import check_blosc1
from cache_schema.format.plain_files import open_plain
from cache_schema.format.schema import BYTES_A_CHUNK, Layout, layout
from cache_schema.format.strict_json import parse_json

blosc.use_threads = False  # chunks are decoded in parallel instead, and blosc's own threads do not survive a fork

SERIAL_BYTES = 4 << 20
"""Largest read, in decoded bytes, that a single thread decodes."""

_NEVER_WRITTEN = 2**64 - 1
_CODEC, _LEVEL = "zstd", 3
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


@dataclass(frozen=True)
class Columns:
    """The layout of an array.

    Attributes
    ----------
    shape, chunks, shards
        As zarr names them.
    dtype
        Of the elements.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    dtype: np.dtype[Any]

    def metadata(self) -> dict[str, Any]:
        """Return the ``zarr.json`` as this package writes it."""
        document: dict[str, Any] = json.loads(
            metadata_of(self.shape, self.dtype, Layout(self.chunks[0], self.shards[0]))
        )
        return document

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def n_bytes(self, rows: int) -> int:
        """Return the decoded size of some rows in bytes."""
        return rows * int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def read(self, folder: Path, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` of the array in a folder.

        Raises
        ------
        ValueError, RuntimeError, OSError
            Bytes were changed, or a file is missing.
        """
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if not out.size:
            return out

        def decode(part: tuple[int, memoryview]) -> None:
            at, block = part
            end = at + self.chunks[0]
            if start <= at and end <= stop:
                blosc.decompress(block, out[at - start : end - start])
                return
            chunk = np.frombuffer(blosc.decompress(block), self.dtype).reshape(self.chunks)
            first, last = max(at, start), min(end, stop)
            out[first - start : last - start] = chunk[first - at : last - at]

        parts = self._parts(folder, start, stop)
        if out.nbytes <= SERIAL_BYTES:
            for part in parts:
                decode(part)
        else:
            for _ in _threads(os.getpid()).map(decode, parts):
                pass
        return out

    def files(self, name: str) -> list[str]:
        """Return the names of all shard files of an array ``name``."""
        rest = "/0" * (len(self.shape) - 1)
        count = 0 if 0 in self.shape else -(-self.shape[0] // self.shards[0])
        return [f"{name}/c/{shard}{rest}" for shard in range(count)]

    def _parts(self, folder: Path, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        """Yield first row and checked block of each chunk that holds rows ``start`` to ``stop``."""
        rows, rest = self.shards[0], ["0"] * (self.ndim - 1)
        for shard in range(start // rows, -(-stop // rows)):
            with open_plain(folder.joinpath("c", str(shard), *rest)) as file:
                yield from self._chunks(file, shard * rows, start, stop)

    def shard(self, rows: NDArray[Any]) -> bytes:
        """Return the file of a whole shard, or of the array's last, shorter one.

        Parameters
        ----------
        rows
            (r, ...) of the array's dtype, starting at the first row of a shard.
        """
        of_zarr = rows.astype(self.dtype.newbyteorder("<"), copy=False)
        size, parts, places, offset = self.chunks[0], [], [], 0
        for first in range(0, len(rows), size):
            chunk = of_zarr[first : first + size]
            if len(chunk) < size:  # the last chunk is padded to full length
                whole = np.full(self.chunks, fill_value(self.dtype), of_zarr.dtype)
                whole[: len(chunk)] = chunk
                chunk = whole
            # As integers: blosc asks for the element size, and does not know float16.
            part = _packer().encode(np.ascontiguousarray(chunk).view(f"<u{self.dtype.itemsize}"))
            part += crc32c(part).to_bytes(4, "little")
            parts.append(part)
            places += [offset, len(part)]
            offset += len(part)
        places += [_NEVER_WRITTEN] * (2 * self.shards[0] // size - len(places))
        index = struct.pack(f"<{len(places)}Q", *places)
        return b"".join([*parts, index, crc32c(index).to_bytes(4, "little")])

    def _chunks(self, file: BinaryIO, at: int, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the chunks of a shard that hold rows ``start`` to ``stop``; ``at`` is the shard's first row."""
        n = self.shards[0] // self.chunks[0]
        index_size = 16 * n + 4
        end = file.seek(0, 2) - index_size
        if end < 0:
            raise ValueError("a shard is too short for its index")
        file.seek(end)
        index = file.read(index_size)
        if len(index) != index_size or crc32c(index[:-4]) != int.from_bytes(index[-4:], "little"):
            raise ValueError("the index of a shard does not fit its checksum")
        places = struct.unpack(f"<{2 * n}Q", index[:-4])
        nbytes = self.n_bytes(1) * self.chunks[0]
        for c in range(n):
            first = at + c * self.chunks[0]
            if first >= stop or first + self.chunks[0] <= start:
                continue
            offset, size = places[2 * c : 2 * c + 2]
            if offset == _NEVER_WRITTEN or size < 4 or offset + size > end:
                raise ValueError("a chunk was never written")
            file.seek(offset)
            part = file.read(size)
            if len(part) != size or crc32c(part[:-4]) != int.from_bytes(part[-4:], "little"):
                raise ValueError("a chunk does not fit its checksum")
            block = memoryview(part)[:-4]
            check_blosc1(block, nbytes, self.dtype.itemsize)
            yield first, block


def fill_value(dtype: np.dtype[Any]) -> Any:
    """Return the value of an element that was never written: NaN, False or 0."""
    return dtype.type(np.nan) if dtype.kind == "f" else dtype.type(0)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """Return the threads that decode chunks in a process; a forked child needs its own."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix=f"decode-{pid}")


@functools.cache
def _packer() -> Blosc:
    return Blosc(_CODEC, _LEVEL, Blosc.BITSHUFFLE, blocksize=0)


def metadata_of(shape: tuple[int, ...], dtype: np.dtype[Any], cut: Layout) -> bytes:
    """Return the ``zarr.json`` of an array of this package.

    Not written by zarr, another version of which might choose other codecs than `Columns.shard` uses.
    """
    rest = [max(1, length) for length in shape[1:]]
    order = {"name": "bytes", "configuration": {"endian": "little"}}
    packing = {
        "typesize": dtype.itemsize, "cname": _CODEC, "clevel": _LEVEL, "shuffle": "bitshuffle", "blocksize": 0
    }  # fmt: skip
    sharding = {
        "chunk_shape": [cut.chunk_rows, *rest],
        "codecs": [
            order if dtype.itemsize > 1 else {"name": "bytes"},
            {"name": "blosc", "configuration": packing},
            {"name": "crc32c"},
        ],
        "index_codecs": _INDEX_CODECS,
        "index_location": "end",
    }
    document = {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [cut.shard_rows, *rest]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": {"f": "NaN", "b": False}.get(dtype.kind, 0),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(document, indent=2).encode()


@functools.lru_cache(maxsize=4096)
def usual_columns(shape: tuple[int, ...], dtype: str) -> tuple[Columns, int, str]:
    """Return the layout that this package gives an array, and size and SHA-256 of its ``zarr.json``."""
    element = np.dtype(dtype)
    cut = layout(shape, element.itemsize)
    metadata = metadata_of(shape, element, cut)
    return columns_from(shape, element, cut), len(metadata), hashlib.sha256(metadata).hexdigest()


def columns_from(shape: tuple[int, ...], dtype: np.dtype[Any], cut: Layout) -> Columns:
    """Return the columns of an array with the given chunks and shards."""
    rest = tuple(max(1, length) for length in shape[1:])
    return Columns(shape, (cut.chunk_rows, *rest), (cut.shard_rows, *rest), dtype)


@functools.lru_cache(maxsize=4096)
def columns_of(metadata: bytes, shape: tuple[int, ...], dtype: str) -> Columns:
    """Return the layout that an array's ``zarr.json`` gives.

    Parameters
    ----------
    metadata
        The bytes of the file.
    shape, dtype
        From the seal.

    Raises
    ------
    ValueError
        The file gives another shape, type, codec or chunking than arrays of stores have.
    """
    document = parse_json(metadata)
    element = np.dtype(dtype)
    try:
        (sharding,) = document["codecs"]
        inner = sharding["configuration"]
        rows, chunk = document["chunk_grid"]["configuration"]["chunk_shape"][0], inner["chunk_shape"][0]
        level = inner["codecs"][1]["configuration"]
        level["clevel"], level["blocksize"] = _LEVEL, 0  # irrelevant to a reader
        extra: dict[str, Any] = {"attributes": {}, "storage_transformers": [], "dimension_names": None}
        given = {**extra, **document}
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        raise ValueError("its zarr.json is not that of a sharded array") from None
    if type(rows) is not int or type(chunk) is not int or not 0 < chunk <= rows or rows % chunk:
        raise ValueError(f"its chunks of {chunk!s:.40} rows do not divide its shards of {rows!s:.40}")
    n = max(1, shape[0])
    columns = columns_from(shape, element, Layout(chunk, rows))
    if chunk > n or rows >= n + chunk or (chunk > 1 and columns.n_bytes(chunk) > BYTES_A_CHUNK):
        raise ValueError(f"its chunks of {chunk} rows, {rows} a shard, are too large for {n} rows")
    expected = json.loads(metadata_of(shape, element, Layout(chunk, rows)))
    for key, value in {**extra, **expected}.items():
        if key not in given or given.pop(key) != value:
            raise ValueError(f"its zarr.json has another {key} than arrays of stores have")
    if given:
        raise ValueError(f"its zarr.json has {min(given)[:40]!r}, which arrays of stores do not have")
    return columns
