"""Shards of a Zarr store written, and small arrays read, directly: one file, one index, one (de)compression a chunk.

Zarr builds some dozen objects and crosses to other threads for every array, one to three milliseconds; a study has
fifty thousand columns of a few hundred kilobytes, which decompress in a tenth of that, and whoever writes beside a
pass should not wait for threads that compete with it. What is written is byte for byte what zarr writes. Only arrays
laid out like that are read here, with the same checksums looked at; all others go through zarr.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import Blosc, blosc
from numpy.typing import NDArray

from cache_schema.schema import Layout

LARGEST = 4 << 20
"""Bytes of a read, decoded, up to which an array counts as small."""

_NEVER_WRITTEN = 2**64 - 1
_DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64")
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

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def n_bytes(self, rows: int) -> int:
        """Return the size of some rows, decoded."""
        return rows * int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def read(self, folder: Path, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` of the array in a folder.

        Raises
        ------
        ValueError, RuntimeError, OSError
            Where bytes were changed.
        """
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        rows, rest = self.shards[0], ["0"] * (self.ndim - 1)
        for shard in range(start // rows, -(-stop // rows)):
            raw = folder.joinpath("c", str(shard), *rest).read_bytes()
            for at, chunk in self._chunks(raw, shard * rows, start, stop):
                first, last = max(at, start), min(at + len(chunk), stop)
                out[first - start : last - start] = chunk[first - at : last - at]
        return out

    def shard(self, rows: NDArray[Any]) -> bytes:
        """Return the file of a whole shard, or of the array's last, shorter one.

        Parameters
        ----------
        rows
            (r, ...) of the array's dtype, from a shard's first row on.
        """
        of_zarr = rows.astype(self.dtype.newbyteorder("<"), copy=False)
        size, parts, places, offset = self.chunks[0], [], [], 0
        for first in range(0, len(rows), size):
            chunk = of_zarr[first : first + size]
            if len(chunk) < size:  # the last chunk is as long as all others
                whole = np.full(self.chunks, fill_value(self.dtype), of_zarr.dtype)
                whole[: len(chunk)] = chunk
                chunk = whole
            # As whole numbers, whose size blosc asks for; it does not know what a float16 is.
            part = _packer().encode(np.ascontiguousarray(chunk).view(f"<u{self.dtype.itemsize}"))
            part += crc32c(part).to_bytes(4, "little")
            parts.append(part)
            places += [offset, len(part)]
            offset += len(part)
        places += [_NEVER_WRITTEN] * (2 * self.shards[0] // size - len(places))
        index = struct.pack(f"<{len(places)}Q", *places)
        return b"".join([*parts, index, crc32c(index).to_bytes(4, "little")])

    def _chunks(self, raw: bytes, at: int, start: int, stop: int) -> list[tuple[int, NDArray[Any]]]:
        """Decode the chunks of a shard that hold rows ``start`` to ``stop``; ``at`` is the shard's first row."""
        n = self.shards[0] // self.chunks[0]
        index = raw[len(raw) - 16 * n - 4 :]
        if len(index) != 16 * n + 4 or crc32c(index[:-4]) != int.from_bytes(index[-4:], "little"):
            raise ValueError("the index of a shard does not fit its checksum")
        places = struct.unpack(f"<{2 * n}Q", index[:-4])
        found = []
        for c in range(n):
            first = at + c * self.chunks[0]
            if first >= stop or first + self.chunks[0] <= start:
                continue
            offset, size = places[2 * c : 2 * c + 2]
            if offset == _NEVER_WRITTEN or size < 4 or offset + size > len(raw):
                raise ValueError("a chunk was never written")
            part = memoryview(raw)[offset : offset + size]
            if crc32c(bytes(part[:-4])) != int.from_bytes(part[-4:], "little"):
                raise ValueError("a chunk does not fit its checksum")
            values = np.frombuffer(blosc.decompress(part[:-4]), self.dtype)
            found.append((first, values.reshape(self.chunks)))
        return found


def fill_value(dtype: np.dtype[Any]) -> Any:
    """Return what an element that was never written reads as: NaN, False or 0."""
    return dtype.type(np.nan) if dtype.kind == "f" else dtype.type(0)


@functools.cache
def _packer() -> Blosc:
    return Blosc(_CODEC, _LEVEL, Blosc.BITSHUFFLE, blocksize=0)


def metadata_of(shape: tuple[int, ...], dtype: np.dtype[Any], cut: Layout) -> bytes:
    """Return the ``zarr.json`` of an array of this package.

    Written out here, not by zarr: another version of it might choose other codecs than `Columns.shard` packs with.
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
def columns_of(metadata: bytes) -> Columns | None:
    """Return the layout that an array's ``zarr.json`` tells, None where it is not one of this package's."""
    document: Mapping[str, Any] = json.loads(metadata)
    try:
        (sharding,) = document["codecs"]
        told = sharding["configuration"]
        order, packing, checksum = told["codecs"]
        shape, shards = tuple(document["shape"]), tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        chunks = tuple(told["chunk_shape"])
        known = (
            sharding["name"] == "sharding_indexed"
            and told["index_location"] == "end"
            and told["index_codecs"] == _INDEX_CODECS
            and order in (_INDEX_CODECS[0], {"name": "bytes"})  # single bytes have no order
            and packing["name"] == "blosc"
            and checksum == _INDEX_CODECS[1]
            and document["chunk_grid"]["name"] == "regular"
            and document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and 0 not in shape
            and shards[1:] == shape[1:] == chunks[1:]
            and shards[0] % chunks[0] == 0
            and document["data_type"] in _DTYPES
            and np.little_endian
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return Columns(shape, chunks, shards, np.dtype(document["data_type"])) if known else None
