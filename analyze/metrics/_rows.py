"""Which rows a metric counts and how much each weighs: sample weights and the label that is ignored."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from closerlook_common.errors import UserError

Weights = NDArray[np.float64]


def checked_weights(values: ArrayLike, n: int, name: str = "weights", other: str = "confidences") -> Weights:
    """Return sample weights as float64: finite, at least 0 and not all 0; the first other row is named."""
    array = _checks.vector(name, values)
    _checks.same_length(other, n, name, array.size)
    if array.min() < 0:
        row = int(np.argmax(array < 0))
        raise UserError(f"{name}: row {row} is {array[row]}; a weight is at least 0")
    if not array.any():
        raise UserError(f"{name} are all 0: no row counts")
    return array.astype(np.float64)


def counted(
    n: int, weights: ArrayLike | None, ignored: NDArray[np.bool_] | None = None, *, other: str = "confidences"
) -> tuple[NDArray[np.bool_] | None, Weights | None]:
    """Return the rows that count, None for all, and their weights, None where each weighs the same.

    Parameters
    ----------
    n
        Rows.
    weights
        (n,) sample weights, or None.
    ignored
        (n,) rows that are left out, or None.
    other
        Name of the column that weights must be as long as.

    Raises
    ------
    UserError
        For weights that are negative, not finite or all 0, and where no row is left.
    """
    mass = None if weights is None else checked_weights(weights, n, other=other)
    keep = None if ignored is None or not ignored.any() else ~ignored
    if mass is not None and not mass.all():
        keep = mass > 0 if keep is None else keep & (mass > 0)
    if keep is None:
        return None, mass
    if not keep.any():
        raise UserError("no row is left: the label of each row that has a weight is ignore_index")
    return keep, None if mass is None else mass[keep]


def labels_and_ignored(
    labels: ArrayLike, ignore_index: int | None, n_classes: int, n: int, *, other: str = "probabilities"
) -> tuple[_checks.Integers, NDArray[np.bool_] | None]:
    """Return checked class numbers and which rows have the label that is ignored (they hold class 0)."""
    if ignore_index is None:
        return _checks.labels(labels, n_classes, n, other=other), None
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, (int, np.integer)):
        raise UserError(f"ignore_index must be a whole number or None; got {ignore_index!r}")
    given = _checks.whole_numbers("labels", labels)
    ignored = np.asarray(given == ignore_index, np.bool_)
    return _checks.labels(np.where(ignored, 0, given), n_classes, n, other=other), ignored
