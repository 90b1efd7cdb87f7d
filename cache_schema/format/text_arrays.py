"""Text arrays: strings as UTF-8 bytes end to end plus offsets, the layout of Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.schema import OFFSETS
from closerlook_common.errors import CorruptStoreError, UserError


def encode_text(name: str, values: Sequence[str]) -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
    """Return the two arrays that hold a sequence of strings.

    Parameters
    ----------
    name
        Of the text array.
    values
        n strings; lone surrogates (from file names that are not UTF-8) are refused.

    Returns
    -------
    dict
        ``name``: uint8 of all bytes; ``name + ".offsets"``: int64 of shape (n + 1,), string i is bytes
        ``offsets[i]`` to ``offsets[i + 1]``.
    """
    try:
        encoded = [value.encode() for value in values]
    except UnicodeEncodeError as error:
        raise UserError(f"{name}: {error.object!r} is not valid Unicode text; rename it") from error
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    return {name: np.frombuffer(b"".join(encoded), dtype=np.uint8), name + OFFSETS: offsets}


def decode_text(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    """Return the strings of a text array.

    Parameters
    ----------
    data, offsets
        As :func:`encode_text` made them.
    """
    if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise CorruptStoreError("the offsets of a text array do not fit its bytes")
    raw = data.tobytes()
    if raw.isascii():
        text = raw.decode("ascii")
        return [text[start:stop] for start, stop in pairwise(offsets.tolist())]
    return [raw[start:stop].decode() for start, stop in pairwise(offsets.tolist())]
