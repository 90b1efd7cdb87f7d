"""Calibrators of the confidence alone: histogram binning, isotonic regression, beta calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.binning import bin_numbers, width_edges
from closerlook_common.errors import UserError

Floats = NDArray[np.float64]


class ConfidenceMap(Protocol):
    """A fitted calibrator: confidence in [0, 1] -> probability of being right."""

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return calibrated confidences, (n,) in [0, 1]."""


@dataclass(frozen=True, eq=False)
class HistogramBinning:
    """Share of right predictions by bin (Zadrozny & Elkan 2001).

    Attributes
    ----------
    edges
        (b + 1,) edges of the bins, (low, high]; 0 belongs to the first.
    values
        (b,) share of right predictions; the bin's middle where no row fell into it.
    """

    edges: Floats
    values: Floats

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the share of the bin that each confidence falls into."""
        return self.values[bin_numbers(checked_confidences(confidences), self.edges)]


@dataclass(frozen=True, eq=False)
class Isotonic:
    """The monotone function of least squared error (pool adjacent violators), linear between its points.

    Attributes
    ----------
    points, values
        (k,) distinct confidences, ascending, and the fit there; constant beyond the ends.
    """

    points: Floats
    values: Floats

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the fit at each confidence."""
        return np.interp(checked_confidences(confidences), self.points, self.values)


@dataclass(frozen=True)
class Beta:
    """Beta calibration (Kull et al. 2017): logit p = a log c - b log(1 - c) + intercept, with a, b >= 0."""

    a: float
    b: float
    intercept: float

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the calibrated probability of each confidence."""
        from scipy.special import expit

        first, second = _log_odds_parts(checked_confidences(confidences))
        calibrated: Floats = expit(self.a * first + self.b * second + self.intercept)
        return calibrated


# Confidences of exactly 0 and 1 have no logarithm: the resolution of a float32 confidence below 1.
CLIP = 2.0**-25


def _log_odds_parts(confidences: Floats) -> tuple[Floats, Floats]:
    c = np.clip(confidences, CLIP, 1.0 - CLIP)
    return np.log(c), -np.log1p(-c)


def fit_histogram(confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15) -> HistogramBinning:
    """Fit histogram binning with bins of equal width.

    Parameters
    ----------
    confidences
        (n,) in [0, 1].
    correct
        (n,) bool.
    n_bins
        Bins.
    """
    c, right = checked_fit_columns(confidences, correct)
    n_bins = _checks.bins(n_bins)
    edges = width_edges(n_bins)  # those of the ECE
    place = bin_numbers(c, edges)
    counts = np.bincount(place, minlength=n_bins)
    hits = np.bincount(place, weights=right, minlength=n_bins)
    middle = (edges[:-1] + edges[1:]) / 2
    return HistogramBinning(edges, np.where(counts > 0, hits / np.maximum(counts, 1), middle))


def fit_isotonic(confidences: ArrayLike, correct: ArrayLike) -> Isotonic:
    """Fit the least-squares monotone function; rows of equal confidence are pooled first."""
    from scipy.optimize import isotonic_regression

    c, right = checked_fit_columns(confidences, correct)
    points, place, counts = np.unique(c, return_inverse=True, return_counts=True)
    share = np.bincount(place, weights=right) / counts
    fitted = isotonic_regression(share, weights=counts.astype(np.float64), increasing=True)
    return Isotonic(points, np.clip(np.asarray(fitted.x, np.float64), 0.0, 1.0))


def fit_beta(confidences: ArrayLike, correct: ArrayLike) -> Beta:
    """Fit beta calibration by maximum likelihood with a, b >= 0.

    Raises
    ------
    UserError
        Where all rows are right or all wrong, or confidences part the right rows from the wrong ones: then there is
        no finite best.
    """
    c, right = checked_fit_columns(confidences, correct)
    if right.all() or not right.any():
        raise UserError("beta calibration needs right and wrong rows to fit on")
    first, second = _log_odds_parts(c)
    design = np.stack([first, second, np.ones_like(c)], axis=1)
    # The loss is convex: its minimum under the bounds is the minimum with some of a and b held at 0 where the
    # derivatives by those point outwards.
    for free in ([0, 1, 2], [0, 2], [1, 2], [2]):
        found = least_logistic_loss(design[:, free], right)
        if found is None or (found[:-1] < 0).any():
            continue
        x = np.zeros(3)
        x[free] = found
        slope = design.T @ (_expit(design @ x) - right) / c.size
        if (slope[[0, 1]] >= -_SLOPE).all():
            return Beta(*(float(value) for value in x))
    raise UserError("beta calibration has no finite best fit: confidences separate right rows from wrong ones")


_SLOPE = 1e-8
"""Derivative of the mean loss that counts as zero."""


def _expit(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z), np.float64)


def least_logistic_loss(design: Floats, right: NDArray[np.bool_] | Floats) -> Floats | None:
    """Return the parameters of least logistic loss by damped Newton steps; None where there is no finite minimum.

    ``right`` are outcomes, or the probabilities that are aimed at.
    """
    n, width = design.shape
    # Columns of equal size make the equations as well conditioned as they can be.
    size = np.sqrt((design**2).mean(axis=0))
    scaled = design / size

    def loss(x: Floats) -> float:
        z = scaled @ x
        return float(np.mean(np.logaddexp(0.0, z) - right * z))

    x = np.zeros(width)
    value = loss(x)
    for _ in range(200):
        p = _expit(scaled @ x)
        slope = scaled.T @ (p - right) / n
        curve = (scaled * (p * (1 - p))[:, None]).T @ scaled / n
        if np.abs(slope).max() < _SLOPE * 1e-2 and np.linalg.eigvalsh(curve)[0] > 1e-12 * curve.max():
            return np.asarray(x / size)
        step = np.linalg.lstsq(curve, -slope, rcond=1e-14)[0]
        share = 1.0
        while share > 1e-10 and loss(x + share * step) > value + 1e-4 * share * float(slope @ step) + 1e-14:
            share /= 2
        if share <= 1e-10:
            # No lower value within the precision of a float: this is the minimum if the slope says so.
            return np.asarray(x / size) if np.abs(slope).max() < _SLOPE else None
        x = x + share * step
        value = loss(x)
        if np.abs(x).max() > 1e6:
            return None
    return None


def checked_confidences(values: ArrayLike) -> Floats:
    """Return confidences as float64, checked."""
    return _checks.confidences(values).astype(np.float64)


def checked_fit_columns(confidences: ArrayLike, correct: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Return confidences as float64 and whether each prediction was right, checked."""
    c = checked_confidences(confidences)
    return c, _checks.correct(correct, c.size)
