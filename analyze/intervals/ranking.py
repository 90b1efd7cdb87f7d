"""Confidences and right or wrong, sorted once: every number that rests on that order.

Each method equals the function of ``analyze.metrics`` of that name on the same columns; together they cost one
sort in place of one each.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.sorting import rising_order
from analyze.metrics import _checks, calibration_tests
from analyze.metrics.binning import BinSums, middle_edges, width_edges
from analyze.metrics.calibration import error_of_bins
from analyze.metrics.selective import optimal_area
from closerlook_common.errors import UserError

Vector = NDArray[np.float64]
Weights = NDArray[np.uint8]

REPLICATES = 64
"""Columns of weights that are held in float64 at once."""


class Binning(NamedTuple):
    """How confidences are put into bins: how many bins, and of equal ``width`` or ``mass``."""

    n_bins: int = 15
    kind: str = "width"


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

    def sums(self, binning: Binning) -> BinSums:
        """Return the totals of each bin."""
        cuts = self.cuts(binning)
        confidence, right = (np.diff(sums[cuts]).astype(np.float64) for sums in self._sums)
        return BinSums(self.edges(binning), np.diff(cuts).astype(np.float64), confidence, right)

    def expected_calibration_error(
        self, *, n_bins: int = 15, binning: str = "width", norm: str = "l1", debias: bool = False
    ) -> float:
        """Return the ECE, options as for the metric."""
        return error_of_bins(self.sums(Binning(n_bins, binning)), norm, debias)

    def signed_calibration_gap(self) -> float:
        """Return mean confidence less accuracy."""
        confidence, right = self._sums
        return float((confidence[-1] - right[-1]) / len(self))

    def ks_calibration_error(self) -> float:
        """Return the Kolmogorov-Smirnov calibration error."""
        totals = np.cumsum(self.gaps)[self.starts[1:] - 1]
        return float(np.abs(totals).max() / len(self))

    def debiased_calibration_error(self, *, n_bins: int = 15, binning: str = "width") -> float:
        """Return the L1 ECE less its estimated bias."""
        sums = self.sums(Binning(n_bins, binning))
        return max(error_of_bins(sums, "l1", debias=False) - calibration_tests.error_bias(sums), 0.0)

    def calibrated_error(self, *, n_bins: int = 15, binning: str = "width") -> calibration_tests.CalibratedError:
        """Return the ECE and that of a calibrated model."""
        observed = self.expected_calibration_error(n_bins=n_bins, binning=binning)
        return calibration_tests.calibrated_error_of_bins(self.values, self.cuts(Binning(n_bins, binning)), observed)

    @cached_property
    def _walk(self) -> tuple[Vector, float]:
        """Running sums of right less confidence after each distinct confidence, and their deviation at the end."""
        sums = -np.cumsum(self.gaps)[self.starts[1:] - 1]
        return sums, math.sqrt(float((self.values * (1 - self.values)).sum()))

    def ks_p_value(self) -> float:
        """Return the p-value of the Kolmogorov-Smirnov test of calibration."""
        return calibration_tests.size_p_value(*self._walk)

    def kuiper_calibration_error(self) -> float:
        """Return Kuiper's calibration error."""
        return calibration_tests.span(self._walk[0]) / len(self)

    def kuiper_p_value(self) -> float:
        """Return the p-value of Kuiper's test of calibration."""
        return calibration_tests.range_p_value(*self._walk)

    def spiegelhalter_z(self) -> float:
        """Return Spiegelhalter's z."""
        return calibration_tests.z_of(self.values, self.right)

    def spiegelhalter_p_value(self) -> float:
        """Return its two-sided p-value."""
        return calibration_tests.two_sided(self.spiegelhalter_z())

    # ------------------------------------------------------------------------------------------ selective

    @cached_property
    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows answered and errors among them, one point a distinct confidence, from the highest."""
        starts = self.starts[-2::-1]
        answered = len(self) - starts
        right = self._sums[1]
        return answered, answered - (right[-1] - right[starts])

    @cached_property
    def _risk(self) -> Vector:
        answered, errors = self.curve
        return np.asarray(errors / answered)

    def aurc(self) -> float:
        """Return the area under the risk-coverage curve (trapezoid)."""
        answered, _ = self.curve
        before = np.concatenate([self._risk[:1], self._risk[:-1]])
        return float((np.diff(answered, prepend=0) * (self._risk + before)).sum() / (2 * len(self)))

    def e_aurc(self) -> float:
        """Return AURC less that of a perfect ranking."""
        return self.aurc() - optimal_area(1 - self._sums[1][-1] / len(self))

    def augrc(self) -> float:
        """Return the area under the generalised risk-coverage curve."""
        answered, errors = self.curve
        before = np.concatenate([[0], errors[:-1]])
        return float((np.diff(answered, prepend=0) * (errors + before)).sum()) / (2 * len(self) ** 2)

    def e_augrc(self) -> float:
        """Return AUGRC less that of a perfect ranking."""
        return self.augrc() - float(1 - self._sums[1][-1] / len(self)) ** 2 / 2

    def correctness_auroc(self) -> float:
        """Return P(confidence of a right row > that of a wrong one), ties half."""
        answered, errors = self.curve
        wrong, right = int(errors[-1]), int(answered[-1] - errors[-1])
        if not wrong or not right:
            raise UserError(f"every row is {'right' if right else 'wrong'}: AUROC of correctness needs both")
        hits = answered - errors
        more_hits, more_errors = np.diff(hits, prepend=0), np.diff(errors, prepend=0)
        # Right rows above each group's wrong ones, and half of those tied with them.
        pairs = int((more_errors * (2 * hits - more_hits)).sum())
        return pairs / (2 * wrong * right)

    def coverage_at_risk(self, *, risk: float, skip: int = 0) -> float:
        """Return the largest coverage whose risk is at most ``risk``."""
        answered, _ = self.curve
        fits = (self._risk <= risk) & (answered > skip)
        return float(answered[fits].max(initial=0) / len(self))

    def risk_at_coverage(self, *, coverage: float) -> float:
        """Return the risk at the first point of at least this coverage."""
        answered, _ = self.curve
        return float(self._risk[int(np.searchsorted(answered / len(self), coverage, side="left"))])

    def selective_accuracy_constraint(self, *, accuracy: float, skip: int = 200) -> float:
        """Return the largest coverage of at least this accuracy."""
        answered, errors = self.curve
        fits = ((answered - errors) / answered >= accuracy) & (answered > skip)
        return float(answered[fits].max(initial=0) / len(self))


def weighted_means(values: NDArray[Any], weights: Weights) -> Vector:
    """Return the weighted means of one column (n,) -> (R,), or of several (n, k) -> (k, R), summed in float64.

    Parameters
    ----------
    values
        A number, or several, of each row.
    weights
        (n, R) uint8: how often each replicate of a bootstrap draws each row.

    Raises
    ------
    UserError
        Where the weights are not those of n rows.
    """
    if weights.ndim != 2 or weights.shape[0] != len(values) or weights.dtype != np.uint8:
        raise UserError(f"weights must be (n, R) uint8 for n = {len(values)} rows; got {weights.dtype} {weights.shape}")
    columns = (values[:, None] if values.ndim == 1 else values).T.astype(np.float64)
    means = np.empty((len(columns), weights.shape[1]))
    for start in range(0, weights.shape[1], REPLICATES):
        block = slice(start, start + REPLICATES)
        means[:, block] = columns @ weights[:, block].astype(np.float64) / len(values)
    return means[0] if values.ndim == 1 else means
