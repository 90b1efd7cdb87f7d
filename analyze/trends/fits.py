"""Straight lines through models on linear, logit or probit axes: OLS, Huber, Theil-Sen, with bootstrap
bands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyze.trends.scales import check_scale, transform, untransform
from cache_schema.errors import UserError, nearest

FitMethod = Literal["ols", "huber", "theil-sen"]
FIT_METHODS: tuple[str, ...] = get_args(FitMethod)
HUBER_T = 1.345
"""Residuals beyond this many robust standard deviations lose weight: 95 % efficiency under normal errors."""
MAD_OF_NORMAL = float(stats.norm.ppf(0.75))
"""Median absolute deviation of a standard normal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A fitted line ``scale(y) = slope * scale(x) + intercept``.

    Attributes
    ----------
    slope, intercept
        On the axes' scales.
    method, x_scale, y_scale
        How it was fitted, and where.
    r2
        Share of variance explained on the scales, by this line (may be negative for a robust fit).
    n
        Number of models.
    x_range
        Smallest and largest x it was fitted on, in the data's own unit.
    replicates
        Bootstrap slopes and intercepts, shape (n_boot, 2).
    """

    slope: float
    intercept: float
    method: str
    x_scale: str
    y_scale: str
    r2: float
    n: int
    x_range: tuple[float, float]
    replicates: Floats = field(repr=False, compare=False)

    def __repr__(self) -> str:
        """Return one readable line."""
        (low, high), _ = self.interval()
        shown = f" [{low:.3f}, {high:.3f}]" if len(self.replicates) else ""
        return (
            f"{self.method} line: slope {self.slope:.3f}{shown}, intercept {self.intercept:.3f}, R² {self.r2:.3f}"
            f" ({self.y_scale} of y on {self.x_scale} of x; {self.n} points)"
        )

    def predict(self, x: ArrayLike) -> Floats:
        """Return y on the line, in the data's own unit (an accuracy for a probit fit)."""
        return untransform(self.slope * transform(x, self.x_scale) + self.intercept, self.y_scale)

    def band(self, x: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the pointwise bootstrap band of the line at x, in the data's own unit; NaN without
        replicates.
        """
        at = transform(np.atleast_1d(np.asarray(x, dtype=np.float64)), self.x_scale)
        if not len(self.replicates):
            empty = np.full(at.shape, np.nan)
            return empty, empty.copy()
        drawn = self.replicates[:, :1] * at + self.replicates[:, 1:]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return untransform(low, self.y_scale), untransform(high, self.y_scale)

    def interval(self, level: float = 0.95) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the bootstrap intervals of slope and intercept."""
        if not len(self.replicates):
            return (np.nan, np.nan), (np.nan, np.nan)
        low, high = np.quantile(self.replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


@dataclass(frozen=True)
class PiecewiseLine:
    """Two lines, one on each side of a break (Taori et al. split ImageNet-A at a ResNet-50's accuracy).

    Attributes
    ----------
    below, above
        The lines for ``x <= split`` and ``x > split``; they need not meet.
    split
        Where they change over, in x's own unit.
    """

    below: Line
    above: Line
    split: float

    def __repr__(self) -> str:
        """Return one line a piece."""
        return f"up to {self.split:g}: {self.below}\nabove {self.split:g}: {self.above}"

    def predict(self, x: ArrayLike) -> Floats:
        """Return y on the line of x's side."""
        at = np.asarray(x, dtype=np.float64)
        return np.where(at <= self.split, self.below.predict(at), self.above.predict(at))

    def band(self, x: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the pointwise bootstrap band."""
        at = np.atleast_1d(np.asarray(x, dtype=np.float64))
        left, right = self.below.band(at, level), self.above.band(at, level)
        return np.where(at <= self.split, left[0], right[0]), np.where(at <= self.split, left[1], right[1])


def fit_line(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "huber",
    x_scale: str = "probit",
    y_scale: str = "probit",
    n_boot: int = 1000,
    seed: int = 0,
) -> Line:
    """Fit a line through models.

    Parameters
    ----------
    x, y
        One value a model, shape (n_models,), in their own unit. Pairs with a NaN are left out.
    method
        ``ols``, ``huber`` (M-estimator, threshold 1.345, scale by median absolute residual) or ``theil-sen``
        (median slope of all pairs, median residual as intercept).
    x_scale, y_scale
        ``linear``, ``logit``, ``probit`` or ``log``.
    n_boot
        Bootstrap replicates over models for the band; 0 for none.
    seed
        Of the bootstrap.

    Raises
    ------
    UserError
        Unknown method or scale, fewer than three models, or all x equal.
    """
    if method not in FIT_METHODS:
        raise UserError(f"no fit {method!r}{nearest(method, FIT_METHODS, told=True)}")
    own_x, own_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if own_x.shape != own_y.shape or own_x.ndim != 1:
        raise UserError(f"a line needs two lists of equal length, got shapes {own_x.shape} and {own_y.shape}")
    keep = ~(np.isnan(own_x) | np.isnan(own_y))
    own_x, own_y = own_x[keep], own_y[keep]
    if len(own_x) < 3:
        raise UserError(f"a line needs at least three models, got {len(own_x)}")
    if np.ptp(own_x) == 0:
        raise UserError("a line needs models that differ on the x axis")
    a, b = transform(own_x, check_scale(x_scale)), transform(own_y, check_scale(y_scale))
    slope, intercept = _estimate(a, b, method)
    residual = b - slope * a - intercept
    spread = float(np.sum((b - b.mean()) ** 2))
    return Line(
        slope=slope,
        intercept=intercept,
        method=method,
        x_scale=x_scale,
        y_scale=y_scale,
        r2=1 - float(np.sum(residual**2)) / spread if spread > 0 else np.nan,
        n=len(a),
        x_range=(float(own_x.min()), float(own_x.max())),
        replicates=_bootstrap(a, b, method, n_boot, seed),
    )


def fit_piecewise(x: ArrayLike, y: ArrayLike, *, split: float, **options: Any) -> PiecewiseLine:
    """Fit one line below and one above a break; ``options`` are those of ``fit_line``."""
    at, to = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    left = at <= split
    if min(left.sum(), (~left & ~np.isnan(at)).sum()) < 3:
        raise UserError(f"a piecewise fit needs three models on each side of {split:g}")
    return PiecewiseLine(
        fit_line(at[left], to[left], **options),
        fit_line(at[~left], to[~left], **options),
        split,
    )


def _estimate(a: Floats, b: Floats, method: str) -> tuple[float, float]:
    if method == "ols":
        found = stats.linregress(a, b)
        return float(found.slope), float(found.intercept)
    if method == "theil-sen":
        slope = _theil_sen(a, b)
        return slope, float(np.median(b - slope * a))
    slopes, intercepts = _huber(a[None], b[None])
    return float(slopes[0]), float(intercepts[0])


def _bootstrap(a: Floats, b: Floats, method: str, n_boot: int, seed: int) -> Floats:
    if n_boot <= 0:
        return np.empty((0, 2))
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(a), size=(n_boot, len(a)))
    rows = rows[np.ptp(a[rows], axis=1) > 0]
    if method == "theil-sen":
        slopes = np.array([_theil_sen(a[r], b[r]) for r in rows])
        intercepts = np.median(b[rows] - slopes[:, None] * a[rows], axis=1)
    elif method == "ols":
        slopes, intercepts = _weighted_line(a[rows], b[rows], np.ones(rows.shape))
    else:
        slopes, intercepts = _huber(a[rows], b[rows], tolerance=1e-6)
    return np.column_stack([slopes, intercepts])


def _weighted_line(a: Floats, b: Floats, weights: Floats) -> tuple[Floats, Floats]:
    total = weights.sum(1)
    mean_a, mean_b = (weights * a).sum(1) / total, (weights * b).sum(1) / total
    off = a - mean_a[:, None]
    slopes = (weights * off * (b - mean_b[:, None])).sum(1) / (weights * off * off).sum(1)
    return slopes, mean_b - slopes * mean_a


def _theil_sen(a: Floats, b: Floats) -> float:
    """Median slope of all pairs that differ in a."""
    run, rise = a[:, None] - a, b[:, None] - b
    ahead = run > 0
    return float(np.median(rise[ahead] / run[ahead]))


def _huber(a: Floats, b: Floats, tolerance: float = 1e-10) -> tuple[Floats, Floats]:
    """Huber fits of many samples at once (rows), as statsmodels' RLM fits one: IRLS with a re-estimated MAD
    scale.

    A library would fit one replicate at a time; a page of ten panels with 1,000 replicates each needs all at
    once.
    """
    slopes, intercepts = _weighted_line(a, b, np.ones(a.shape))
    active = np.arange(len(a))
    for _ in range(200):
        x, y = a[active], b[active]
        residual = np.abs(y - slopes[active, None] * x - intercepts[active, None])
        scale = np.median(residual, axis=1, keepdims=True) / MAD_OF_NORMAL
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.minimum(1.0, HUBER_T * scale / residual)
        # a line that passes through more than half of the points exactly has scale 0: it is the fit
        exact = scale[:, 0] <= 1e-13
        weights[exact] = 1.0
        new_slopes, new_intercepts = _weighted_line(x, y, weights)
        moved = np.maximum(np.abs(new_slopes - slopes[active]), np.abs(new_intercepts - intercepts[active]))
        kept = exact | ~np.isfinite(new_slopes)
        going = active[~kept]
        slopes[going], intercepts[going] = new_slopes[~kept], new_intercepts[~kept]
        active = active[~kept & (moved > tolerance)]
        if not len(active):
            break
    return slopes, intercepts
