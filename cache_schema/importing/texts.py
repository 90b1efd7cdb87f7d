"""Convert arrays and columns of any type to text; bytes are decoded as UTF-8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError


def texts_of(values: Iterable[Any], what: str) -> list[str]:
    """Return values as text; missing values as empty strings.

    Parameters
    ----------
    values
        Strings, bytes (UTF-8), or values that ``str`` converts.
    what
        File and column, for the error.
    """
    found = []
    for row, value in enumerate(values):
        if isinstance(value, bytes):
            try:
                found.append(value.decode())
            except UnicodeDecodeError:
                raise UserError(f"{what}: row {row} is {value!r}, which is not UTF-8 text") from None
        else:
            found.append("" if value is None else str(value))
    return found


def image_names(array: NDArray[Any], what: str) -> list[str]:
    """Return an array of image ids as text; UserError if it holds neither text nor integers."""
    if array.ndim != 1 or array.dtype.kind not in "USiuO":
        raise UserError(f"{what} are {array.dtype} of shape {array.shape}, not names: n texts or whole numbers")
    if array.dtype.kind == "U":
        return [str(name) for name in array.tolist()]
    return texts_of(array.tolist(), what)


def plain_texts(array: NDArray[Any], what: str) -> Any:
    """Return a column of bytes as text, any other unchanged."""
    return texts_of(array.tolist(), what) if array.dtype.kind == "S" and array.ndim == 1 else np.asarray(array)
