"""Calibrators of the confidence alone: histogram binning, isotonic regression, beta calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.errors import UserError, nearest

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
        (b + 1,) edges of the bins, (low, high].
    values
        (b,) share of right predictions; the bin's middle where no row fell into it.
    """

    edges: Floats
    values: Floats

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the share of the bin that each confidence falls into."""
        c = np.asarray(confidences, np.float64)
        place = np.clip(np.searchsorted(self.edges, c, side="left") - 1, 0, self.values.size - 1)
        return self.values[place]


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
        return np.interp(np.asarray(confidences, np.float64), self.points, self.values)


@dataclass(frozen=True)
class Beta:
    """Beta calibration (Kull et al. 2017): logit p = a log c - b log(1 - c) + intercept, with a, b >= 0."""

    a: float
    b: float
    intercept: float

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the calibrated probability of each confidence."""
        from scipy.special import expit

        first, second = _log_odds_parts(np.asarray(confidences, np.float64))
        calibrated: Floats = expit(self.a * first + self.b * second + self.intercept)
        return calibrated


# Confidences of exactly 0 and 1 have no logarithm: the resolution of a float32 confidence below 1.
_CLIP = 2.0**-25


def _log_odds_parts(confidences: Floats) -> tuple[Floats, Floats]:
    c = np.clip(confidences, _CLIP, 1.0 - _CLIP)
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
    c, right = _checked(confidences, correct)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    place = np.clip(np.searchsorted(edges, c, side="left") - 1, 0, n_bins - 1)
    counts = np.bincount(place, minlength=n_bins)
    hits = np.bincount(place, weights=right, minlength=n_bins)
    middle = (edges[:-1] + edges[1:]) / 2
    return HistogramBinning(edges, np.where(counts > 0, hits / np.maximum(counts, 1), middle))


def fit_isotonic(confidences: ArrayLike, correct: ArrayLike) -> Isotonic:
    """Fit the least-squares monotone function; rows of equal confidence are pooled first."""
    from scipy.optimize import isotonic_regression

    c, right = _checked(confidences, correct)
    points, place, counts = np.unique(c, return_inverse=True, return_counts=True)
    share = np.bincount(place, weights=right) / counts
    fitted = isotonic_regression(share, weights=counts.astype(np.float64), increasing=True)
    return Isotonic(points, np.clip(np.asarray(fitted.x, np.float64), 0.0, 1.0))


def fit_beta(confidences: ArrayLike, correct: ArrayLike) -> Beta:
    """Fit beta calibration by maximum likelihood with a, b >= 0.

    Raises
    ------
    UserError
        Where all rows are right or all wrong (there is no finite best), or the solver does not converge.
    """
    from scipy.optimize import minimize

    c, right = _checked(confidences, correct)
    if right.all() or not right.any():
        raise UserError("beta calibration needs right and wrong rows to fit on")
    first, second = _log_odds_parts(c)
    design = np.stack([first, second, np.ones_like(c)], axis=1)

    def loss(x: Floats) -> tuple[float, Floats]:
        z = design @ x
        p = np.where(z >= 0, 1.0 / (1.0 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1.0 + np.exp(-np.abs(z))))
        value = float(np.mean(np.logaddexp(0.0, z) - right * z))
        return value, design.T @ (p - right) / c.size

    found = minimize(
        loss,
        np.array([1.0, 1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None), (0.0, None), (None, None)],
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9},
    )
    if not found.success:
        raise UserError(f"beta calibration did not converge: {found.message}")
    return Beta(*(float(v) for v in found.x))


def fit_confidence_map(method: str, confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15) -> ConfidenceMap:
    """Fit the named calibrator of the confidence: ``histogram``, ``isotonic`` or ``beta``."""
    if method == "histogram":
        return fit_histogram(confidences, correct, n_bins=n_bins)
    if method == "isotonic":
        return fit_isotonic(confidences, correct)
    if method == "beta":
        return fit_beta(confidences, correct)
    known = ("histogram", "isotonic", "beta")
    raise UserError(f"no calibrator {method!r}{nearest(method, known)}; there are {', '.join(known)}")


def _checked(confidences: Any, correct: Any) -> tuple[Floats, NDArray[np.bool_]]:
    c = np.asarray(confidences, np.float64)
    right = np.asarray(correct).astype(np.bool_)
    if c.ndim != 1 or c.shape != right.shape or not c.size:
        raise UserError(f"confidences and correct must be (n,) with n >= 1, not {c.shape} and {right.shape}")
    bad = ~((c >= 0.0) & (c <= 1.0))
    if bad.any():
        raise UserError(f"row {int(bad.argmax())}: confidence {c[bad.argmax()]} is not in [0, 1]")
    return c, right
