"""Check the arguments of metrics, calibrators and detectors: shapes, types, finite numbers; a bad row is named."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics._arrays import as_array
from closerlook_common.errors import UserError, nearest

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return the value if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        words = ", ".join(allowed)
        raise UserError(f"{name} must be one of {words}; got {_shown(value)}{nearest(str(value), allowed)}")
    return value


MOST = 2**31 - 1
"""Largest whole number that an option may be."""

MOST_BINS = 1_000_000


def bins(value: object) -> int:
    """Return a number of bins."""
    return whole_number("n_bins", value, most=MOST_BINS)


def whole_number(name: str, value: object, *, least: int = 1, most: int = MOST) -> int:
    """Return the value as an int of at least ``least`` and at most ``most``."""
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int) or plain < least:
        raise UserError(f"{name} must be a whole number of at least {least}; got {_shown(value)}")
    if plain > most:
        raise UserError(f"{name} must be at most {most}; got {_shown(value)}")
    return plain


def number(name: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """Return the value as a float if it is one finite real number, more than ``above`` and at least ``least``."""
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise UserError(f"{name} must be a number; got {_shown(value)}")
    try:
        found = float(plain)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UserError(f"{name} must be a finite number; got {_shown(value)}")
    if not found > above:
        raise UserError(f"{name} must be a number above {above:g}; got {_shown(value)}")
    if not found >= least:
        raise UserError(f"{name} must be at least {least:g}; got {_shown(value)}")
    return found


def fraction(name: str, value: object, *, open_ends: bool = False) -> float:
    """Return the value if it lies in [0, 1], or in (0, 1) where the ends are excluded."""
    found = number(name, value)
    inside = 0 < found < 1 if open_ends else 0 <= found <= 1
    if not inside:
        raise UserError(f"{name} must lie {'strictly ' if open_ends else ''}between 0 and 1; got {_shown(value)}")
    return found


def switch(name: str, value: object) -> bool:
    """Return the value if it is True or False, or 1 or 0."""
    plain = _plain(value)
    if not isinstance(plain, int) or plain not in (0, 1):
        raise UserError(f"{name} must be True or False; got {_shown(value)}")
    return bool(plain)


def _plain(value: Any) -> object:
    """Return the number that a scalar of numpy or torch holds; other values as they are."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _shown(value: object) -> str:
    """Return a value for an error, in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


_HINTS = {
    "confidences": "; of probabilities p and labels y take p.max(axis=1) and p.argmax(axis=1) == y",
    "labels": "; of one-hot rows take labels.argmax(axis=1)",
}
"""What a caller that passes a matrix in place of these most likely has."""


def _floating(name: str, values: ArrayLike, n_dimensions: int) -> Floats:
    array = as_array(name, values)
    if array.ndim != n_dimensions:
        hint = _HINTS.get(name, "") if (array.ndim, n_dimensions) == (2, 1) else ""
        raise UserError(f"{name} must have {n_dimensions} dimension(s); its shape is {array.shape}{hint}")
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


def logits(values: ArrayLike, name: str = "logits") -> Floats:
    """Return a matrix of logits or log-probabilities: -inf stands for a class of probability 0.

    NaN, +inf and rows without a finite number are refused.
    """
    array = _floating(name, values, 2)
    if array.shape[1] == 0:
        raise UserError(f"{name} has no columns; one per class is needed")
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(array.sum())
    if suspect:
        bad = np.isnan(array) | (array == np.inf)
        if bad.any():
            row, column = (int(i[0]) for i in np.nonzero(bad))
            raise UserError(f"{name}: row {row} holds {array[row, column]} (class {column}); NaN and inf are refused")
        empty = ~np.isfinite(array).any(axis=1)
        if empty.any():
            raise UserError(f"{name}: row {int(np.argmax(empty))} is -inf for every class")
    return array


def same_length(first: str, a: int, second: str, b: int) -> None:
    """Refuse two columns of different length."""
    if a != b:
        raise UserError(f"{first} has {a} rows and {second} has {b}: they must describe the same images")


ROUNDING = 1e-6
"""How far above 1 a probability may be: float32 softmaxes give 1.0000001."""


def _rounded_to_one(array: Floats) -> Floats:
    """Return the array with 1 in place of what rounding put just above it."""
    above = array > 1
    if not above.any():
        return array
    return np.where(above & (array <= 1 + ROUNDING), array.dtype.type(1), array)


def confidences(values: ArrayLike, name: str = "confidences") -> Floats:
    """Return a vector of numbers in [0, 1]."""
    array = _rounded_to_one(vector(name, values))
    outside = (array < 0) | (array > 1)
    if outside.any():
        row = int(np.argmax(outside))
        raise UserError(f"{name}: row {row} is {array[row]!s}, outside [0, 1]; logits need a softmax first")
    return array


def probabilities(values: ArrayLike, name: str = "probabilities") -> Floats:
    """Return a matrix of numbers in [0, 1]; rows need not sum to one exactly (stores are rounded)."""
    array = _rounded_to_one(matrix(name, values))
    if array.min() < 0 or array.max() > 1:
        row, column = (int(i[0]) for i in np.nonzero((array < 0) | (array > 1)))
        raise UserError(
            f"{name}: row {row} holds {array[row, column]!s} (class {column}), outside [0, 1]; "
            "logits need a softmax first"
        )
    return array


def _zeros_and_ones(name: str, array: NDArray[Any]) -> Bools:
    """Return booleans from booleans or zeros and ones; the first other entry is named."""
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name} must be booleans or zeros and ones; its type is {array.dtype}")
    wrong = ~((array == 0) | (array == 1))
    if wrong.any():
        place = tuple(int(i[0]) for i in np.nonzero(wrong))
        row = place[0] if len(place) == 1 else place
        raise UserError(f"{name}: row {row} is {array[place]!s}; right is 1 and wrong is 0")
    return array.astype(np.bool_)


def correct(values: ArrayLike, n: int | None = None, name: str = "correct", other: str = "confidences") -> Bools:
    """Return right and wrong as booleans, from booleans or from zeros and ones."""
    array = as_array(name, values)
    if array.ndim != 1:
        raise UserError(f"{name} must have 1 dimension(s); its shape is {array.shape}")
    if n is not None:
        same_length(other, n, name, array.size)
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    return _zeros_and_ones(name, array)


def correct_matrix(name: str, values: ArrayLike) -> Bools:
    """Return a matrix of right and wrong (or has and has not) as booleans."""
    array = as_array(name, values)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name} must have 2 dimension(s) with rows and columns; its shape is {array.shape}")
    return _zeros_and_ones(name, array)


def whole_numbers(name: str, values: ArrayLike, n_dimensions: int = 1) -> NDArray[np.integer[Any]]:
    """Return class numbers whose number of classes is not known."""
    array = as_array(name, values)
    if array.ndim != n_dimensions:
        hint = _HINTS.get(name, "") if (array.ndim, n_dimensions) == (2, 1) else ""
        raise UserError(f"{name} must have {n_dimensions} dimension(s); its shape is {array.shape}{hint}")
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype.kind not in "iu":
        raise UserError(f"{name} must be class numbers (integers); its type is {array.dtype}")
    return array


def names(name: str, values: ArrayLike, n: int | None = None, other: str = "correct") -> NDArray[np.generic]:
    """Return names or numbers of groups, (n,): they are compared, not computed with."""
    array = as_array(name, values)
    if array.ndim != 1:
        raise UserError(f"{name} must have 1 dimension(s); its shape is {array.shape}")
    if n is not None:
        same_length(other, n, name, array.size)
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype.kind == "f":
        vector(name, array)
    return array


def labels(
    values: ArrayLike,
    n_classes: int,
    n: int | None = None,
    name: str = "labels",
    other: str = "probabilities",
) -> Integers:
    """Return class numbers between 0 and ``n_classes`` - 1."""
    array = whole_numbers(name, values)
    if n is not None:
        same_length(other, n, name, array.size)
    # Compared before it is converted: a wide type must not wrap into the range.
    outside = (array < 0) | (array >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        hint = "; rows without a label must be left out" if array[row] < 0 else ""
        raise UserError(f"{name}: row {row} is {array[row]}, no class between 0 and {n_classes - 1}{hint}")
    return array.astype(np.int64)
