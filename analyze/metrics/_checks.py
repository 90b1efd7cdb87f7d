"""What goes into a metric is looked at here: shapes agree, numbers are finite, and a bad row is named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.errors import UserError, nearest

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return the value if it is one of the allowed words."""
    if value not in allowed:
        words = ", ".join(allowed)
        raise UserError(f"{name} must be one of {words}; got {value!r}{nearest(str(value), allowed)}")
    return str(value)


def whole_number(name: str, value: object, *, least: int = 1) -> int:
    """Return the value as an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}; got {value!r}")
    return int(value)


def fraction(name: str, value: float, *, open_ends: bool = False) -> float:
    """Return the value if it lies in [0, 1], or in (0, 1) where the ends are excluded."""
    inside = 0 < value < 1 if open_ends else 0 <= value <= 1
    if not inside:
        raise UserError(f"{name} must lie {'strictly ' if open_ends else ''}between 0 and 1; got {value!r}")
    return float(value)


_MENDS = {
    "confidences": "; of probabilities p and labels y take p.max(axis=1) and p.argmax(axis=1) == y",
    "labels": "; of one-hot rows take labels.argmax(axis=1)",
}
"""What whoever passes a matrix in place of these most likely has."""


def _floating(name: str, values: ArrayLike, n_dimensions: int) -> Floats:
    array = np.asarray(values)
    if array.ndim != n_dimensions:
        mend = _MENDS.get(name, "") if (array.ndim, n_dimensions) == (2, 1) else ""
        raise UserError(f"{name} must have {n_dimensions} dimension(s); its shape is {array.shape}{mend}")
    if array.shape[0] == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise UserError(f"{name} must be real numbers; its type is {array.dtype}")
    return array


def vector(name: str, values: ArrayLike) -> Floats:
    """Return a finite vector of at least one number; float32 stays float32."""
    array = _floating(name, values, 1)
    # One sum is cheaper than a mask; it is finite exactly where all are, overflow aside.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(array.sum())
    if suspect:
        finite = np.isfinite(array)
        if not finite.all():
            row = int(np.argmin(finite))
            raise UserError(f"{name}: row {row} is {array[row]}; NaN and inf are refused")
    return array


def matrix(name: str, values: ArrayLike) -> Floats:
    """Return a finite matrix of at least one row and one column; float32 stays float32."""
    array = _floating(name, values, 2)
    if array.shape[1] == 0:
        raise UserError(f"{name} has no columns; one per class is needed")
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(array.sum())
    if suspect:
        finite = np.isfinite(array)
        if not finite.all():
            row, column = (int(i[0]) for i in np.nonzero(~finite))
            raise UserError(f"{name}: row {row} holds {array[row, column]} (class {column}); NaN and inf are refused")
    return array


def same_length(first: str, a: int, second: str, b: int) -> None:
    """Refuse two columns of different length."""
    if a != b:
        raise UserError(f"{first} has {a} rows and {second} has {b}: they must describe the same images")


def confidences(values: ArrayLike, name: str = "confidences") -> Floats:
    """Return a vector of numbers in [0, 1]."""
    array = vector(name, values)
    outside = (array < 0) | (array > 1)
    if outside.any():
        row = int(np.argmax(outside))
        raise UserError(f"{name}: row {row} is {array[row]!s}, outside [0, 1]; logits need a softmax first")
    return array


def probabilities(values: ArrayLike, name: str = "probabilities") -> Floats:
    """Return a matrix of numbers in [0, 1]; rows need not sum to one exactly (stores are rounded)."""
    array = matrix(name, values)
    if array.min() < 0 or array.max() > 1:
        row, column = (int(i[0]) for i in np.nonzero((array < 0) | (array > 1)))
        raise UserError(
            f"{name}: row {row} holds {array[row, column]!s} (class {column}), outside [0, 1]; "
            "logits need a softmax first"
        )
    return array


def correct(values: ArrayLike, n: int | None = None, name: str = "correct", other: str = "confidences") -> Bools:
    """Return right and wrong as booleans, from booleans or from zeros and ones."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise UserError(f"{name} must have 1 dimension(s); its shape is {array.shape}")
    if n is not None:
        same_length(other, n, name, array.size)
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name} must be booleans or zeros and ones; its type is {array.dtype}")
    answer = array.astype(np.bool_)
    wrong = array != answer
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{name}: row {row} is {array[row]!s}; right is 1 and wrong is 0")
    return answer


def labels(
    values: ArrayLike,
    n_classes: int,
    n: int | None = None,
    name: str = "labels",
    other: str = "probabilities",
) -> Integers:
    """Return class numbers between 0 and ``n_classes`` - 1."""
    array = np.asarray(values)
    if array.ndim != 1:
        mend = _MENDS.get(name, "") if array.ndim == 2 else ""
        raise UserError(f"{name} must have 1 dimension(s); its shape is {array.shape}{mend}")
    if n is not None:
        same_length(other, n, name, array.size)
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype.kind not in "iu":
        raise UserError(f"{name} must be class numbers; its type is {array.dtype}")
    answer = array.astype(np.int64)
    outside = (answer < 0) | (answer >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        mend = "; rows without a label must be left out" if answer[row] < 0 else ""
        raise UserError(f"{name}: row {row} is {array[row]}, no class between 0 and {n_classes - 1}{mend}")
    return answer
