"""Rows that are being scored, tile by tile: what several detectors need of them is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.head import Head
from analyze.detectors.products import Right, multiply
from closerlook_common.errors import UserError

TILE = 1008
"""Rows that are worked on at a time."""

Float32 = NDArray[np.float32]
T = TypeVar("T")


class LogitSums(NamedTuple):
    """What one pass over a tile of logits leaves, (n,) each; NaN for a row that holds NaN.

    Attributes
    ----------
    predicted
        Class of the largest logit (the first of several).
    largest
        Largest logit.
    rest
        Sum of exp(z_c - max z) over all classes but the predicted one: 1 - p of the top keeps its precision. A class
        more than 87 below the top counts as 87 below it (1.6e-38).
    weighted
        Sum of exp(z_c - max z) (z_c - max z).
    deviation
        Sum of abs(C p_c - 1).
    """

    predicted: NDArray[np.intp]
    largest: Float32
    rest: Float32
    weighted: Float32
    deviation: Float32


class LogitRows:
    """One tile of logits; what several detectors need of them is computed when first asked for.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Float32.
    """

    def __init__(self, logits: Float32) -> None:
        self.logits = logits
        self._sums: LogitSums | None = None
        self._powers: Float32 | None = None

    def sums(self, *, powers: bool = False) -> LogitSums:
        """Return the statistics; with ``powers`` keep exp(z - max z) as well."""
        from analyze.detectors._row_kernels import logit_sums

        if self._sums is None or (powers and self._powers is None):
            n, c = self.logits.shape
            if powers:
                self._powers = np.empty((n, c), np.float32)
            found = LogitSums(np.empty(n, np.intp), *(np.empty(n, np.float32) for _ in range(4)))
            kept = self._powers if self._powers is not None else np.empty((0, 0), np.float32)
            logit_sums(self.logits, kept, powers, *found)
            self._sums = found
        return self._sums

    @cached_property
    def probabilities(self) -> Float32:
        """Softmax of the logits, (n, C)."""
        rest = self.sums(powers=True).rest
        assert self._powers is not None
        return np.asarray(self._powers / (np.float32(1) + rest)[:, None])


class Rows:
    """One tile of rows; every property is computed when first asked for.

    Parameters
    ----------
    features : ndarray of shape (n, D) or None
        Float32, as the model gave them.
    logits : ndarray of shape (n, C) or None
        Float32.
    patch_scores : ndarray of shape (n,) or None
        Float32, of the best patch of each image.
    """

    def __init__(self, features: Float32 | None, logits: Float32 | None, patch_scores: Float32 | None = None) -> None:
        self.walks: Sequence[Any] = ()
        """What the detectors that score the tile ask of banks (``walks.Walk``)."""
        self._features, self._patch_scores = features, patch_scores
        self._logits = None if logits is None else LogitRows(logits)
        self._unit: Rows | None = None
        self._kept: dict[int, tuple[Any, Any]] = {}

    @property
    def features(self) -> Float32:
        """(n, D) float32."""
        if self._features is None:
            raise UserError("this detector scores features: give score(features=...)")
        return self._features

    @property
    def patch_scores(self) -> Float32:
        """(n,) float32."""
        if self._patch_scores is None:
            raise UserError("this detector scores the best patch of each image: give score(patch_scores=...)")
        return self._patch_scores

    @property
    def of_logits(self) -> LogitRows:
        """The tile of logits."""
        if self._logits is None:
            raise UserError(
                "this detector scores logits: give score(logits=...), or fit it with a head and give features"
            )
        return self._logits

    @property
    def logits(self) -> Float32:
        """(n, C) float32."""
        return self.of_logits.logits

    @property
    def has_features(self) -> bool:
        """Whether there are features."""
        return self._features is not None

    @property
    def has_logits(self) -> bool:
        """Whether there are logits."""
        return self._logits is not None

    def with_logits(self, made: LogitRows) -> None:
        """Take logits that were computed from the features where none were given."""
        if self._logits is None:
            self._logits = made

    def of_unit_length(self) -> Rows:
        """Return the same rows with features scaled to unit length (a row of zeros stays zero)."""
        if self._unit is None:
            norm = self.norm[:, None]
            length = np.where(norm > 0, norm, np.float32(1))
            self._unit = Rows(np.asarray(self.features / length, dtype=np.float32), None, self._patch_scores)
            self._unit.walks = self.walks
        self._unit._logits = self._logits
        return self._unit

    def once(self, owner: object, make: Callable[[], T]) -> T:
        """Return what ``make`` gives, computed once for each owner."""
        kept = self._kept.get(id(owner))
        if kept is None:
            kept = (owner, make())
            self._kept[id(owner)] = kept
        return cast(T, kept[1])

    def less(self, origin: NDArray[Any]) -> Float32:
        """Return ``features - origin``, computed once for each origin (the same array)."""
        return self.once(origin, lambda: self.features - origin)

    def distance(self, origin: NDArray[Any]) -> Float32:
        """Return the length of ``features - origin``, at least 1e-8 so that nothing is divided by zero, (n,)."""
        from analyze.detectors._row_kernels import square_sums

        squares = np.empty(len(self.features), np.float32)
        square_sums(self.less(origin), self.features.shape[1], squares)
        return np.maximum(np.sqrt(squares), np.float32(1e-8))

    def product(self, right: Right, *, minus: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return ``(features - minus) @ right``, computed once for each right side.

        Parameters
        ----------
        right
            (D, k); float64 where float32 would lose too much.
        minus : ndarray of shape (D,)
            Always the same one for the same right side.
        """
        return self.once(right, lambda: multiply(self.features if minus is None else self.less(minus), right))

    def leading(self, right: Right, columns: int, origin: NDArray[Any]) -> NDArray[Any]:
        """Return the first columns of ``(features - origin) @ right``, or more; none is computed twice."""
        kept = self._kept.get(id(right))
        had: NDArray[Any] = kept[1] if kept is not None else np.empty((len(self.features), 0), right.panels.dtype)
        if had.shape[1] < columns:
            width = right.panels.shape[2]
            whole = had.shape[1] // width
            more = Right(right.panels[whole : -(-columns // width)], columns - whole * width)
            had = np.concatenate([had[:, : whole * width], multiply(self.less(origin), more)], axis=1)
            self._kept[id(right)] = (right, had)
        return had

    # -- of the features ---------------------------------------------------------------------------------------------

    @cached_property
    def _feature_sums(self) -> tuple[Float32, Float32, Float32]:
        from analyze.detectors._row_kernels import feature_sums

        plain, absolute, squared = np.empty((3, len(self.features)), np.float32)
        feature_sums(self.features, plain, absolute, squared)
        return plain, absolute, squared

    @property
    def feature_sum(self) -> Float32:
        """Sum of each row of features, (n,)."""
        return self._feature_sums[0]

    @property
    def absolute_sum(self) -> Float32:
        """Sum of absolute values of each row of features, (n,)."""
        return self._feature_sums[1]

    @cached_property
    def norm(self) -> Float32:
        """Euclidean length of each row of features, (n,)."""
        return np.asarray(np.sqrt(self._feature_sums[2]))

    @property
    def spoilt_features(self) -> NDArray[np.bool_]:
        """Rows whose features hold NaN, (n,)."""
        return np.asarray(np.isnan(self.feature_sum))

    @property
    def spoilt_logits(self) -> NDArray[np.bool_]:
        """Rows whose logits hold NaN, (n,)."""
        return np.asarray(np.isnan(self.of_logits.sums().largest))

    # -- of the logits -----------------------------------------------------------------------------------------------

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Class of the largest logit (the first of several), (n,)."""
        return self.of_logits.sums().predicted

    @property
    def largest(self) -> Float32:
        """Largest logit, (n,)."""
        return self.of_logits.sums().largest

    @property
    def rest(self) -> Float32:
        """Sum of exp(z_c - max z) over all classes but the predicted one, (n,)."""
        return self.of_logits.sums().rest

    @property
    def logsumexp(self) -> Float32:
        """Log of the sum of exp(z), (n,)."""
        return self.largest + np.log1p(self.rest)

    @property
    def negative_entropy(self) -> Float32:
        """Sum of p log p, (n,)."""
        sums = self.of_logits.sums()
        return sums.weighted / (np.float32(1) + sums.rest) - np.log1p(sums.rest)

    @property
    def deviation(self) -> Float32:
        """Sum of abs(C p - 1), (n,)."""
        return self.of_logits.sums().deviation

    @property
    def probabilities(self) -> Float32:
        """Softmax of the logits, (n, C)."""
        return self.of_logits.probabilities


def with_logits_of(rows: Rows, head: Head) -> Rows:
    """Return a copy of some rows with the logits that a head gives for their features."""
    space = rows.of_unit_length() if head.normalize else rows
    copied = Rows(rows.features, None, rows._patch_scores)
    copied.with_logits(LogitRows(space.product(head.columns) + head.bias))
    return copied


def row_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Sum each row (pairwise, in the array's own type; no row looks at its neighbours)."""
    return np.asarray(np.ascontiguousarray(values).sum(axis=1))


def logsumexp(
    values: NDArray[Any],
    offsets: NDArray[Any] | None = None,
    factors: NDArray[Any] | None = None,
    pivots: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the log-sum-exp of each row; -inf for a row of -inf, +inf where one entry is.

    Parameters
    ----------
    values : ndarray of shape (n, k)
        Float32 or float64.
    offsets : ndarray of shape (k,)
        Added to every row.
    factors : ndarray of shape (n,)
        Multiplies each row first.
    pivots : ndarray of shape (k,)
        Subtracted before that.
    """
    from analyze.detectors._row_kernels import logsumexp_rows

    n, k = values.shape
    if values.dtype == np.float32:
        result = np.empty(n, np.float32)
        given = [
            np.full(size, fill, np.float32) if v is None else np.ascontiguousarray(v, dtype=np.float32)
            for v, size, fill in ((pivots, k, 0), (factors, n, 1), (offsets, k, 0))
        ]
        logsumexp_rows(np.ascontiguousarray(values), *given, result)
        return result
    values = values if pivots is None else values - pivots
    values = values if factors is None else values * factors[:, None]
    values = values if offsets is None else values + offsets
    top = values.max(axis=1)
    safe = np.where(np.isfinite(top), top, 0.0)
    return np.asarray(np.where(np.isfinite(top), safe + np.log(row_sum(np.exp(values - safe[:, None]))), top))


def tiles(
    features: NDArray[Any] | None, logits: NDArray[Any] | None, patch_scores: NDArray[Any] | None = None
) -> Iterator[tuple[slice, Float32 | None, Float32 | None]]:
    """Cut rows into tiles of up to ``TILE`` rows.

    Yields
    ------
    tuple
        The rows' slice, features and logits as float32.
    """
    given = next(values for values in (features, logits, patch_scores) if values is not None)
    for start in range(0, len(given), TILE):
        part = slice(start, min(start + TILE, len(given)))
        yield part, _tile(features, part), _tile(logits, part)


def _tile(values: NDArray[Any] | None, part: slice) -> Float32 | None:
    if values is None:
        return None
    return np.ascontiguousarray(values[part], dtype=np.float32)


def unit_of(values: NDArray[Any]) -> Float32:
    """Scale rows to unit length as ``Rows.of_unit_length`` does."""
    result = np.empty(values.shape, np.float32)
    for part, tile, _ in tiles(values, None):
        result[part] = Rows(tile, None).of_unit_length().features
    return result
