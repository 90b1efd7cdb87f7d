"""Confidences and right or wrong, sorted once: every number that rests on that order, and its replicates.

Each method equals the function of ``analyze.metrics`` of that name on the same columns; together they cost one
sort in place of one each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.ranking import calibration_walk, mean_totals, selective_walk
from analyze.kernels.sorting import rising_order
from analyze.metrics import _checks
from analyze.metrics.binning import BinSums, middle_edges, width_edges
from analyze.metrics.calibration import error_of_bins
from analyze.metrics.selective import optimal_area
from cache_schema.errors import UserError

Vector = NDArray[np.float64]
Weights = NDArray[np.uint8]


class Binning(NamedTuple):
    """How confidences are put into bins: how many bins, and of equal ``width`` or ``mass``."""

    n_bins: int = 15
    kind: str = "width"


class Totals(NamedTuple):
    """What the replicates have met before each place of the order: gap, rows and errors, (k, R) each."""

    gaps: Vector
    rows: Vector
    errors: Vector


class Ranking:
    """A column of confidences in rising order.

    Parameters
    ----------
    confidences
        (n,) in [0, 1].
    correct
        (n,) whether the prediction was right.

    Raises
    ------
    UserError
        For NaN, inf or a confidence outside [0, 1] (the row is named), no rows, lengths that differ.

    Attributes
    ----------
    order
        (n,) int32 rows from the least confident; equal ones in the order they came in.
    values
        (n,) float64 sorted confidences.
    right
        (n,) bool in that order.
    """

    def __init__(self, confidences: ArrayLike, correct: ArrayLike) -> None:
        confidence = _checks.confidences(confidences)
        right = _checks.correct(correct, confidence.size)
        self.order, values = rising_order(confidence)
        self.values: Vector = values.astype(np.float64)
        self.right = right[self.order]

    def __len__(self) -> int:
        return self.order.size

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where groups of equal confidence begin, and the end."""
        inner = np.flatnonzero(self.values[1:] != self.values[:-1]) + 1
        return np.concatenate([[0], inner, [len(self)]])

    @cached_property
    def gaps(self) -> Vector:
        """Confidence less correctness, in the order."""
        return self.values - self.right

    @cached_property
    def _sums(self) -> tuple[Vector, NDArray[np.int64]]:
        """Confidence and right rows before each place of the order."""
        confidence = np.zeros(len(self) + 1)
        np.cumsum(self.values, out=confidence[1:])
        right = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.right, out=right[1:])
        return confidence, right

    def edges(self, binning: Binning) -> Vector:
        """Return the edges of a binning."""
        if binning.kind == "width":
            return width_edges(binning.n_bins)
        return middle_edges(self.values, binning.n_bins)

    def cuts(self, binning: Binning) -> NDArray[np.int64]:
        """Return where the bins (lo, hi] begin in the order, and the end."""
        inner = np.searchsorted(self.values, self.edges(binning)[1:-1], side="right")
        return np.concatenate([[0], inner, [len(self)]])

    # ------------------------------------------------------------------------------------------ calibration

    def expected_calibration_error(
        self, *, n_bins: int = 15, binning: str = "width", norm: str = "l1", debias: bool = False
    ) -> float:
        """Return the ECE, options as for the metric."""
        how = Binning(n_bins, binning)
        cuts = self.cuts(how)
        confidence, right = (np.diff(sums[cuts]).astype(np.float64) for sums in self._sums)
        counts = np.diff(cuts).astype(np.float64)
        return error_of_bins(BinSums(self.edges(how), counts, confidence, right), norm, debias)

    def signed_calibration_gap(self) -> float:
        """Return mean confidence less accuracy."""
        confidence, right = self._sums
        return float((confidence[-1] - right[-1]) / len(self))

    def ks_calibration_error(self) -> float:
        """Return the Kolmogorov-Smirnov calibration error."""
        totals = np.cumsum(self.gaps)[self.starts[1:] - 1]
        return float(np.abs(totals).max() / len(self))

    # ------------------------------------------------------------------------------------------ selective

    @cached_property
    def _curve(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows answered and errors among them, one point a distinct confidence, from the highest."""
        starts = self.starts[-2::-1]
        answered = len(self) - starts
        right = self._sums[1]
        return answered, answered - (right[-1] - right[starts])

    @cached_property
    def _risk(self) -> Vector:
        answered, errors = self._curve
        return np.asarray(errors / answered)

    def aurc(self) -> float:
        """Return the area under the risk-coverage curve (trapezoid)."""
        answered, _ = self._curve
        before = np.concatenate([self._risk[:1], self._risk[:-1]])
        return float((np.diff(answered, prepend=0) * (self._risk + before)).sum() / (2 * len(self)))

    def e_aurc(self) -> float:
        """Return AURC less that of a perfect ranking."""
        return self.aurc() - optimal_area(1 - self._sums[1][-1] / len(self))

    def augrc(self) -> float:
        """Return the area under the generalised risk-coverage curve."""
        answered, errors = self._curve
        before = np.concatenate([[0], errors[:-1]])
        return float((np.diff(answered, prepend=0) * (errors + before)).sum()) / (2 * len(self) ** 2)

    def correctness_auroc(self) -> float:
        """Return P(confidence of a right row > that of a wrong one), ties half."""
        answered, errors = self._curve
        wrong, right = int(errors[-1]), int(answered[-1] - errors[-1])
        if not wrong or not right:
            raise UserError(f"every row is {'right' if right else 'wrong'}: AUROC of correctness needs both")
        hits = answered - errors
        more_hits, more_errors = np.diff(hits, prepend=0), np.diff(errors, prepend=0)
        # Right rows above each group's wrong ones, and half of those beside them.
        pairs = int((more_errors * (2 * hits - more_hits)).sum())
        return pairs / (2 * wrong * right)

    def coverage_at_risk(self, *, risk: float, skip: int = 0) -> float:
        """Return the largest coverage whose risk is at most ``risk``."""
        answered, _ = self._curve
        fits = (self._risk <= risk) & (answered > skip)
        return float(answered[fits].max(initial=0) / len(self))

    def risk_at_coverage(self, *, coverage: float) -> float:
        """Return the risk at the first point of at least this coverage."""
        answered, _ = self._curve
        return float(self._risk[int(np.searchsorted(answered / len(self), coverage, side="left"))])

    def selective_accuracy_constraint(self, *, accuracy: float, skip: int = 200) -> float:
        """Return the largest coverage of at least this accuracy."""
        answered, errors = self._curve
        fits = ((answered - errors) / answered >= accuracy) & (answered > skip)
        return float(answered[fits].max(initial=0) / len(self))

    # ------------------------------------------------------------------------------------------ replicates

    def calibration_replicates(self, weights: Weights, binnings: Sequence[Binning]) -> CalibrationReplicates:
        """Return the calibration errors of each replicate, by one walk; weights (n, R) uint8."""
        return CalibrationReplicates(self, matching(len(self), weights), binnings)

    def selective_replicates(
        self, weights: Weights, *, risks: Sequence[tuple[float, int]] = (), coverages: Sequence[float] = ()
    ) -> tuple[dict[str, Vector], Vector, Vector]:
        """Return the selective numbers of each replicate, by one walk.

        Parameters
        ----------
        weights
            (n, R) uint8.
        risks
            Pairs of a risk and the leading rows to skip: the largest coverage at that risk.
        coverages
            The risk at the first point of that coverage.

        Returns
        -------
        tuple
            ``aurc``, ``e_aurc``, ``augrc`` and ``correctness_auroc`` by name, (R,) each; (len(risks), R)
            coverages; (len(coverages), R) risks. AUROC follows from AUGRC and accuracy; it is NaN where a
            replicate holds no error, or nothing else.
        """
        weights = matching(len(self), weights)
        n, n_replicates = weights.shape
        wrong = ~self.right
        in_rows = np.empty((1, n))
        in_rows[0, self.order] = wrong
        errors = np.zeros((1, n_replicates))
        mean_totals(in_rows, weights, errors)
        out = np.empty((2, n_replicates))
        points = np.empty((len(risks) + len(coverages), n_replicates), np.float32)
        selective_walk(
            self.order,
            self.starts,
            wrong.astype(np.float32),
            weights,
            errors[0].astype(np.float32),
            # A hair of slack, so that 1 - 0.99 is the risk 0.01 in float32 as well.
            np.array([risk * (1 + 1e-6) for risk, _ in risks], np.float32),
            np.array([skip for _, skip in risks], np.float32),
            np.array([coverage * (1 - 1e-7) * n for coverage in coverages], np.float32),
            out,
            points,
        )
        area, joint = out
        error = errors[0] / n
        both = (error > 0) & (error < 1)
        room = np.where(both, error * (1 - error), 1.0)
        auroc = np.where(both, 1 - (joint - error**2 / 2) / room, np.nan)
        optimum = error + (1 - error) * np.log1p(-np.minimum(error, 1 - 1e-16))
        named = {"aurc": area, "e_aurc": area - optimum, "augrc": joint, "correctness_auroc": auroc}
        return named, points[: len(risks)] / np.float64(n), points[len(risks) :].astype(np.float64)


class CalibrationReplicates:
    """Calibration errors of all replicates of a ranking, from one walk.

    Equal-mass edges are those of the sample, not made anew for each replicate.

    Parameters
    ----------
    ranking
        The sorted column.
    weights
        (n, R) uint8 whose columns each sum to n.
    binnings
        Which binnings will be asked for.
    """

    def __init__(self, ranking: Ranking, weights: Weights, binnings: Sequence[Binning]) -> None:
        self._n, n_replicates = weights.shape
        cuts = {how: ranking.cuts(how) for how in binnings}
        places = np.unique(np.concatenate([[0, self._n], *cuts.values()]))
        self._rows = {how: np.searchsorted(places, found) for how, found in cuts.items()}
        is_end = np.zeros(self._n, np.bool_)
        is_end[ranking.starts[1:] - 1] = True
        self._largest = np.empty(n_replicates)
        shape = (places.size, n_replicates)
        self._totals = Totals(np.empty(shape), np.empty(shape), np.empty(shape))
        calibration_walk(
            ranking.order,
            is_end,
            ranking.gaps,
            (~ranking.right).astype(np.float32),
            weights,
            places,
            *self._totals,
            self._largest,
        )

    def expected_calibration_error(
        self, *, n_bins: int = 15, binning: str = "width", norm: str = "l1", debias: bool = False
    ) -> Vector:
        """Return the ECE of each replicate, (R,)."""
        rows = self._rows[Binning(n_bins, binning)]
        surplus = np.abs(np.diff(self._totals.gaps[rows], axis=0))
        if norm == "l1":
            return np.asarray(surplus.sum(axis=0) / self._n)
        counts = np.diff(self._totals.rows[rows], axis=0)
        held = np.maximum(counts, 1)
        gaps = surplus / held
        if norm == "max":
            return np.asarray(gaps.max(axis=0))
        squares = gaps**2
        if debias:
            rate = np.diff(self._totals.errors[rows], axis=0) / held
            squares = np.where(counts > 1, squares - rate * (1 - rate) / np.maximum(counts - 1, 1), 0.0)
        return np.asarray(np.sqrt(np.maximum((squares * counts).sum(axis=0) / self._n, 0.0)))

    def signed_calibration_gap(self) -> Vector:
        """Return the signed gap of each replicate, (R,)."""
        return np.asarray(self._totals.gaps[-1] / self._n)

    def ks_calibration_error(self) -> Vector:
        """Return the KS error of each replicate, (R,)."""
        return np.asarray(self._largest / self._n)


def matching(n: int, weights: Weights) -> Weights:
    """Return weights that describe n rows.

    Raises
    ------
    UserError
        Where they are not (n, R) uint8.
    """
    if weights.ndim != 2 or weights.shape[0] != n or weights.dtype != np.uint8:
        raise UserError(f"weights must be (n, R) uint8 for n = {n} rows; got {weights.dtype} {weights.shape}")
    return np.ascontiguousarray(weights)


def weighted_means(values: NDArray[Any], weights: Weights) -> Vector:
    """Return the weighted means of one column (n,) -> (R,), or of several (n, k) -> (k, R), summed in float64."""
    weights = matching(len(values), weights)
    columns = np.ascontiguousarray((values[:, None] if values.ndim == 1 else values).T, np.float64)
    totals = np.zeros((len(columns), weights.shape[1]))
    mean_totals(columns, weights, totals)
    totals /= len(values)
    means: Vector = totals[0] if values.ndim == 1 else totals
    return means
