"""The messages that describe an array in an HDF5 file: bytes in, shape, type, filters and layout out.

Only what the arrays of a store have is known; ValueError for all else.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

UNDEFINED = 2**64 - 1
_REMEMBERED = 256
"""Messages that are parsed once: the columns of a store have the same ones."""
BLOSC2, FLETCHER32 = 32026, 3
FORMAT_ERRORS = (ValueError, IndexError, struct.error)
"""What reading a file that is not as a store's raises."""
_FLOATS = {
    2: bytes.fromhex("20 0f 00 02 00 00 00 00 00 10 00 0a 05 00 0a 0f 00 00 00"),
    4: bytes.fromhex("20 1f 00 04 00 00 00 00 00 20 00 17 08 00 17 7f 00 00 00"),
    8: bytes.fromhex("20 3f 00 08 00 00 00 00 00 40 00 34 0b 00 34 ff 03 00 00"),
}


class Chunk(NamedTuple):
    """Where the bytes of a chunk lie."""

    at: int
    size: int


class Dataset(NamedTuple):
    """An array of the file.

    Attributes
    ----------
    shape, dtype
        Of the array.
    chunks
        Shape of a chunk; None where the array has no elements.
    filters
        Numbers of the filters, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    filters: tuple[int, ...]


class Listing(NamedTuple):
    """Where the index of an array's chunks lies.

    Attributes
    ----------
    kind
        Of the index; 1 for an only chunk, 3 for a fixed array.
    place
        Of the chunk or of the array.
    size
        Of the only chunk.
    bits
        Of a page of the array.
    """

    kind: int
    place: int
    size: int
    bits: int


NO_CHUNKS = Listing(0, UNDEFINED, 0, 0)


@lru_cache(_REMEMBERED)
def shape_of(raw: bytes) -> tuple[int, ...]:
    """Return the lengths of an array's axes."""
    if len(raw) < 4 or raw[0] != 2 or raw[3] != 1 or not 1 <= raw[1] <= 3 or len(raw) < 4 + 8 * raw[1]:
        raise ValueError("its shape is not one of one to three axes")
    shape = struct.unpack_from(f"<{raw[1]}Q", raw, 4)
    if raw[2] & 1 and raw[4 + 8 * raw[1] :] != raw[4 : 4 + 8 * raw[1]]:
        raise ValueError("it can grow, which an array of a store never can")
    return shape


@lru_cache(_REMEMBERED)
def dtype_of(raw: bytes) -> np.dtype[Any]:
    """Return the type of an array's elements."""
    if len(raw) < 8:
        raise ValueError("its type is not known")
    kind, size = raw[0] & 0x0F, int.from_bytes(raw[4:8], "little")
    if kind == 0 and size in (1, 2, 4, 8) and raw[1] in (0, 8) and raw[8:12] == struct.pack("<HH", 0, 8 * size):
        return np.dtype(f"{'i' if raw[1] else 'u'}{size}")
    if kind == 1 and raw[1 : 1 + 19] == _FLOATS.get(size):
        return np.dtype(f"f{size}")
    if kind == 8 and size == 1 and raw[1:3] == b"\x02\x00" and _is_bool(raw):
        return np.dtype(bool)
    raise ValueError("its type is not one of a store's")


def _is_bool(raw: bytes) -> bool:
    """Return whether an enumeration is the one that stands for false and true."""
    base = raw[8:20]
    names = raw[20:-2].replace(b"\0", b"")
    return (
        base[0] & 0x0F == 0
        and int.from_bytes(base[4:8], "little") == 1
        and names == b"FALSETRUE"
        and raw[-2:] == b"\0\1"
    )


@lru_cache(_REMEMBERED)
def filters_of(raw: bytes) -> tuple[int, ...]:
    """Return the numbers of an array's filters, in order."""
    if len(raw) < 2 or raw[0] != 2 or raw[1] > 4:
        raise ValueError("its filters are not known")
    at, found = 2, []
    for _ in range(raw[1]):
        (number,) = struct.unpack_from("<H", raw, at)
        at += 2
        name = 0
        if number >= 256:
            (name,) = struct.unpack_from("<H", raw, at)
            at += 2
        _, values = struct.unpack_from("<HH", raw, at)
        at += 4 + name + 4 * values
        found.append(number)
    return tuple(found)


def dataset_of(
    raw: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], filters: tuple[int, ...]
) -> tuple[Dataset, Listing]:
    """Return the array that a layout message gives, and where its chunks are listed."""
    if len(raw) < 2 or raw[0] not in (3, 4):
        raise ValueError("its layout is not one of a store's")
    if raw[1] == 1 and 0 in shape:
        return Dataset(shape, dtype, None, filters), NO_CHUNKS
    if raw[0] != 4 or raw[1] != 2 or len(raw) < 5:
        raise ValueError("it is not kept in chunks of this file")
    flags, axes, width = raw[2], raw[3], raw[4]
    if axes != len(shape) + 1 or not 1 <= width <= 8 or flags & ~2 or len(raw) < 6 + axes * width:
        raise ValueError("its chunks do not fit its shape")
    ends = range(5, 5 + axes * width, width)
    lengths = [int.from_bytes(raw[at : at + width], "little") for at in ends]
    if lengths[-1] != dtype.itemsize or 0 in lengths or 0 in shape or filters != (BLOSC2, FLETCHER32):
        raise ValueError(f"its elements, chunks or filters {filters} are not those of a store")
    kind, at = raw[5 + axes * width], 6 + axes * width
    if kind != 3 and not (kind == 1 and flags & 2):
        raise ValueError(f"its chunks are listed in a way ({kind}) that a store does not use")
    return Dataset(shape, dtype, tuple(lengths[:-1]), filters), _listing_of(kind, raw, at)


_ONLY_CHUNK = struct.Struct("<QIQ")
_FIXED_ARRAY = struct.Struct("<BQ")


def _listing_of(kind: int, raw: bytes, at: int) -> Listing:
    """Return the listing that begins at a place in a message."""
    if kind == 3:
        bits, place = _FIXED_ARRAY.unpack_from(raw, at)
        return Listing(3, place, 0, bits)
    size, mask, place = _ONLY_CHUNK.unpack_from(raw, at)
    if mask:
        raise ValueError("its chunk left out a filter")
    return Listing(1, place, size, 0)


class Form(NamedTuple):
    """The header of an array except for its listing: the columns of a store differ in nothing else.

    Attributes
    ----------
    before, after
        The bytes of the header around the listing.
    size
        Of the header, in bytes.
    kind
        Of the listing.
    dataset
        What these bytes give.
    """

    before: bytes
    after: bytes
    size: int
    kind: int
    dataset: Dataset

    def listing(self, raw: bytes) -> Listing:
        """Return the listing of a header of this form."""
        return _listing_of(self.kind, raw, len(self.before))


def form_of(raw: bytes, layout: bytes, dataset: Dataset, kind: int) -> Form | None:
    """Return the form of a header.

    Parameters
    ----------
    raw
        The header.
    layout
        Its layout message.
    dataset, kind
        What it describes; kind of its listing.

    Returns
    -------
    Form or None
        None if the array has no chunks, or if it is not certain where the message lies.
    """
    at = raw.find(layout)
    if dataset.chunks is None or at < 0 or raw.find(layout, at + 1) >= 0:
        return None
    begin = at + 6 + layout[3] * layout[4]
    end = begin + (_FIXED_ARRAY if kind == 3 else _ONLY_CHUNK).size
    return Form(raw[:begin], raw[end:], len(raw), kind, dataset)
