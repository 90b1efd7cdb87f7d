"""Read the header of a NumPy array without reading the array, and without trusting it."""

from __future__ import annotations

import io
import math
import tokenize
from typing import Any, NamedTuple

import numpy as np

MOST_HEADER_BYTES = 10_000
"""Largest header that numpy itself parses."""


class BadHeaderError(ValueError):
    """The bytes are not a plain array; the message says why."""


class Header(NamedTuple):
    """Shape, order and type of an array, and the offset of its data."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def n_bytes(self) -> int:
        """Return the size of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any) -> Header:
    """Read a header from the beginning of a binary file.

    Raises
    ------
    BadHeaderError
        It is not a header, or one of Python objects.
    """
    start = file.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY":
        raise BadHeaderError("it does not begin like a NumPy array")
    version = (start[6], start[7])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise BadHeaderError(f"its version is {version[0]}.{version[1]}; 1.0, 2.0 and 3.0 are known")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(width), "little")
    if length > MOST_HEADER_BYTES:
        raise BadHeaderError(f"its header has {length:,} bytes; {MOST_HEADER_BYTES:,} are allowed")
    text = file.read(length)
    if len(text) != length:
        raise BadHeaderError("it ends within the header")
    reader = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = reader(io.BytesIO(length.to_bytes(width, "little") + text))
    except (
        ValueError,
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
        OverflowError,
        tokenize.TokenError,
    ) as error:
        raise BadHeaderError(f"its header is not one: {' '.join(str(error).split())[:120]}") from error
    if dtype.hasobject:
        raise BadHeaderError("it holds Python objects, which are never loaded; save plain arrays")
    if dtype.itemsize == 0:
        raise BadHeaderError(f"its elements are {dtype}, of no bytes")
    if any(axis < 0 for axis in shape):
        raise BadHeaderError(f"its shape is {shape}")
    return Header(tuple(int(axis) for axis in shape), bool(fortran), dtype, 8 + width + length)
