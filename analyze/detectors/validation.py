"""In-distribution rows set aside for fitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.metrics._arrays import numbers
from analyze.metrics._checks import whole_numbers
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class Validation:
    """In-distribution rows set aside for fitting: features (n, D) and logits (n, C), labels (n,) or None."""

    features: NDArray[Any] | None
    logits: NDArray[Any] | None
    labels: NDArray[Any] | None = None
    source: str = "validation"

    @staticmethod
    def of(given: Any) -> Validation:
        """Return validation rows from ``(features, logits[, labels])``, a prediction store, or an object with those."""
        if isinstance(given, Validation):
            return given
        if isinstance(given, np.ndarray):
            raise UserError("validation is (features, logits), (features, logits, labels) or a store; got one array")
        if isinstance(given, (tuple, list)):
            if len(given) not in (2, 3):
                raise UserError(
                    f"validation is (features, logits) or (features, logits, labels); got {len(given)} arrays"
                )
            features, logits, labels = (*given, None)[:3]
        else:
            features, logits, labels = (_array(given, name) for name in ("features", "logits", "labels"))
        arrays = [
            None if values is None else numbers(f"validation {name}", values, 2)
            for name, values in (("features", features), ("logits", logits))
        ]
        classes = None if labels is None else whole_numbers("validation labels", labels)
        lengths = {len(values) for values in (*arrays, classes) if values is not None}
        if len(lengths) != 1:
            shapes = ", ".join("none" if v is None else str(v.shape) for v in (*arrays, classes))
            raise UserError(f"validation rows need features, logits and labels of equal length; got {shapes}")
        kept = _finite(*arrays)
        if not len(kept):
            raise UserError("validation holds no row without NaN or infinity: there is nothing to fit on")
        if len(kept) == next(iter(lengths)):  # the arrays themselves, not copies of them
            return Validation(arrays[0], arrays[1], classes)
        rows = [None if values is None else values[kept] for values in (*arrays, classes)]
        return Validation(rows[0], rows[1], rows[2])


def _array(given: Any, name: str) -> Any:
    value = getattr(given, name, None)
    return value() if callable(value) else value


def _finite(*arrays: NDArray[Any] | None) -> NDArray[np.intp]:
    """Return the rows that are finite in all arrays."""
    good = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in arrays if values is not None])
    return np.flatnonzero(good)
