"""Rows that are being scored, tile by tile: what several detectors need of them is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.products import Right, multiply
from cache_schema.errors import UserError

TILE = 1008
"""Rows that are worked on at a time."""

Float32 = NDArray[np.float32]


class Rows:
    """One tile of rows; every property is computed when first asked for.

    Parameters
    ----------
    features : ndarray of shape (n, D) or None
        Float32, as the model gave them.
    logits : ndarray of shape (n, C) or None
        Float32.
    """

    def __init__(self, features: Float32 | None, logits: Float32 | None) -> None:
        self._features, self._logits = features, logits
        self._unit: Rows | None = None
        self._products: dict[int, tuple[Right, NDArray[Any]]] = {}

    @property
    def features(self) -> Float32:
        """(n, D) float32."""
        if self._features is None:
            raise UserError("this detector scores features: give score(features=...)")
        return self._features

    @property
    def logits(self) -> Float32:
        """(n, C) float32."""
        if self._logits is None:
            raise UserError(
                "this detector scores logits: give score(logits=...), or fit it with a head and give features"
            )
        return self._logits

    @property
    def has_features(self) -> bool:
        """Whether there are features."""
        return self._features is not None

    @property
    def has_logits(self) -> bool:
        """Whether there are logits."""
        return self._logits is not None

    def with_logits(self, make: Callable[[Float32], Float32]) -> None:
        """Compute the logits from the features where none were given."""
        if self._logits is None:
            self._logits = make(self.features)

    def of_unit_length(self) -> Rows:
        """Return the same rows with features scaled to unit length (a row of zeros stays zero)."""
        if self._unit is None:
            norm = self.norm[:, None]
            length = np.where(norm > 0, norm, np.float32(1))
            self._unit = Rows(np.asarray(self.features / length, dtype=np.float32), self._logits)
        return self._unit

    def product(self, right: Right, *, minus: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return ``(features - minus) @ right``, computed once for each right side.

        Parameters
        ----------
        right
            (D, k); float64 where float32 would lose too much.
        minus : ndarray of shape (D,)
            Always the same one for the same right side.
        """
        kept = self._products.get(id(right))
        if kept is None:
            kept = (right, multiply(self.features if minus is None else self.features - minus, right))
            self._products[id(right)] = kept
        return kept[1]

    # -- of the features ---------------------------------------------------------------------------------------------

    @cached_property
    def norm(self) -> Float32:
        """Euclidean length of each row of features, (n,)."""
        return np.asarray(np.sqrt(row_sum(np.square(self.features))))

    @cached_property
    def absolute_sum(self) -> Float32:
        """Sum of absolute values of each row of features, (n,)."""
        return row_sum(np.abs(self.features))

    @cached_property
    def spoilt_features(self) -> NDArray[np.bool_]:
        """Rows whose features hold NaN, (n,)."""
        return np.asarray(np.isnan(row_sum(self.features)))

    @cached_property
    def spoilt_logits(self) -> NDArray[np.bool_]:
        """Rows whose logits hold NaN, (n,)."""
        return np.asarray(np.isnan(row_sum(self.logits)))

    # -- of the logits -----------------------------------------------------------------------------------------------

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """Class of the largest logit (the first of several), (n,)."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def largest(self) -> Float32:
        """Largest logit, (n,)."""
        return np.take_along_axis(self.logits, self.predicted[:, None], axis=1)[:, 0]

    @cached_property
    def _shifted(self) -> tuple[Float32, Float32]:
        """exp(z - max z) with the top entry set to 0, and the sum of that: 1 - p of the top keeps its precision."""
        powers = np.exp(self.logits - self.largest[:, None])
        np.put_along_axis(powers, self.predicted[:, None], np.float32(0), axis=1)
        return powers, row_sum(powers)

    @property
    def rest(self) -> Float32:
        """Sum of exp(z_c - max z) over all classes but the predicted one, (n,)."""
        return self._shifted[1]

    @cached_property
    def logsumexp(self) -> Float32:
        """Log of the sum of exp(z), (n,)."""
        return self.largest + np.log1p(self.rest)

    @cached_property
    def probabilities(self) -> Float32:
        """Softmax of the logits, (n, C)."""
        powers, rest = self._shifted
        total = np.float32(1) + rest
        softmax: Float32 = powers / total[:, None]
        np.put_along_axis(softmax, self.predicted[:, None], (np.float32(1) / total)[:, None], axis=1)
        return softmax


def row_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Sum each row (pairwise, in the array's own type; no row looks at its neighbours)."""
    return np.asarray(np.ascontiguousarray(values).sum(axis=1))


def logsumexp(values: NDArray[Any]) -> NDArray[Any]:
    """Return the log-sum-exp of each row; -inf for a row of -inf, +inf where one entry is."""
    top = values.max(axis=1)
    safe = np.where(np.isfinite(top), top, np.float32(0)).astype(values.dtype)
    result = safe + np.log(row_sum(np.exp(values - safe[:, None])))
    return np.asarray(np.where(np.isfinite(top), result, top), dtype=values.dtype)


def tiles(
    features: NDArray[Any] | None, logits: NDArray[Any] | None
) -> Iterator[tuple[slice, int, Float32 | None, Float32 | None]]:
    """Cut rows into tiles of up to ``TILE`` rows.

    Yields
    ------
    tuple
        The rows' slice, their number, features and logits as float32.
    """
    given = features if features is not None else logits
    assert given is not None
    for start in range(0, len(given), TILE):
        part = slice(start, min(start + TILE, len(given)))
        yield part, part.stop - start, _tile(features, part), _tile(logits, part)


def _tile(values: NDArray[Any] | None, part: slice) -> Float32 | None:
    if values is None:
        return None
    return np.ascontiguousarray(values[part], dtype=np.float32)


def unit_of(values: NDArray[Any]) -> Float32:
    """Scale rows to unit length as ``Rows.of_unit_length`` does."""
    result = np.empty(values.shape, np.float32)
    for part, count, tile, _ in tiles(values, None):
        result[part] = Rows(tile, None).of_unit_length().features[:count]
    return result
