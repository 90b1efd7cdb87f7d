"""Small arrays of a Zarr store read directly: one file, one index, one decompression a chunk.

Zarr builds some dozen objects and crosses to another thread for every array, about a millisecond; a study has
fifty thousand columns of a few hundred kilobytes, which decompress in a tenth of that. Only arrays laid out as
this package writes them are read here, with the same checksums looked at; all others go through zarr.
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
from numcodecs import blosc
from numpy.typing import NDArray

LARGEST = 4 << 20
"""Bytes of a read, decoded, up to which an array counts as small."""

_NEVER_WRITTEN = 2**64 - 1
_DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64")
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
