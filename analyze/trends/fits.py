"""Straight lines through models on linear, logit or probit axes: OLS, Huber, Theil-Sen, with bands over families."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyze.trends.dependence import described, jackknife_covariance, quantile
from analyze.trends.families import Families, effective_models
from analyze.trends.scales import check_scale, transform, untransform
from closerlook_common.errors import UserError, nearest

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
    families
        Number of families that the models come in; n where they are taken as independent.
    n_effective
        Independent models that they are worth, for the slope.
    uncertainty
        How the intervals were made, or why there are none.
    covariance
        (2, 2) of slope and intercept; NaN where there are no intervals.
    freedom
        Degrees of freedom of the intervals: effective families less two.
    """

    slope: float
    intercept: float
    method: str
    x_scale: str
    y_scale: str
    r2: float
    n: int
    x_range: tuple[float, float]
    families: int = 0
    n_effective: float = float("nan")
    uncertainty: str = ""
    covariance: Floats = field(default_factory=lambda: np.full((2, 2), np.nan), repr=False, compare=False)
    freedom: float = float("nan")

    def __repr__(self) -> str:
        """Return one readable line."""
        (low, high), _ = self.interval()
        shown = f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else ""
        return (
            f"{self.method} line: slope {self.slope:.3f}{shown}, intercept {self.intercept:.3f}, R² {self.r2:.3f}"
            f" ({self.y_scale} of y on {self.x_scale} of x; {self.n} points)"
        )

    def predict(self, x: ArrayLike) -> Floats:
        """Return y on the line, in the data's own unit (an accuracy for a probit fit)."""
        return untransform(self.slope * transform(x, self.x_scale) + self.intercept, self.y_scale)

    def band(self, x: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the pointwise band of the line at x, in the data's own unit; NaN without intervals."""
        at = transform(np.atleast_1d(np.asarray(x, dtype=np.float64)), self.x_scale)
        design = np.column_stack([at, np.ones_like(at)])
        with np.errstate(invalid="ignore"):
            error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", design, self.covariance, design), 0.0))
        middle, reach = self.slope * at + self.intercept, self._reach(level)
        return untransform(middle - reach * error, self.y_scale), untransform(middle + reach * error, self.y_scale)

    def interval(self, level: float = 0.95) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the intervals of slope and intercept; NaN where there are none."""
        reach = self._reach(level)
        slope, intercept = (reach * float(e) for e in np.sqrt(np.diag(self.covariance)))
        return (self.slope - slope, self.slope + slope), (self.intercept - intercept, self.intercept + intercept)

    def _reach(self, level: float) -> float:
        return float(stats.t.ppf(0.5 + level / 2, self.freedom)) if np.isfinite(self.freedom) else float("nan")


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
        """Return the pointwise band."""
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
    families: ArrayLike | Families | None = None,
    errors: bool = True,
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
    families
        (n_models,) a label each: models that share one are not independent. None takes all models as independent.
    errors
        Whether slope, intercept and band get intervals: without each family in turn (jackknife); for Theil-Sen's line,
        whose medians a jackknife does not suit, the spread over resampled families.
    seed
        Of the resampling.

    Raises
    ------
    UserError
        Unknown method or scale, fewer than three models, or all x equal.
    """
    if method not in FIT_METHODS:
        raise UserError(f"no fit {method!r}{nearest(method, FIT_METHODS, list_all=True)}")
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
    groups = Families.independent(len(keep)) if families is None else families
    groups = (groups if isinstance(groups, Families) else Families.of(groups)).rows(keep)
    slope, intercept = (float(v[0]) for v in _estimates(a, b, np.ones((1, len(a))), method))
    residual = b - slope * a - intercept
    spread = float(np.sum((b - b.mean()) ** 2))
    known = {} if not errors else _errors(a, b, np.array([slope, intercept]), method, groups, seed)
    return Line(
        slope=slope,
        intercept=intercept,
        method=method,
        x_scale=x_scale,
        y_scale=y_scale,
        r2=1 - float(np.sum(residual**2)) / spread if spread > 0 else np.nan,
        n=len(a),
        x_range=(float(own_x.min()), float(own_x.max())),
        families=groups.count,
        n_effective=effective_models(groups, a, residual),
        uncertainty=described(groups) if errors else "none: not asked for",
        **known,
    )


def fit_piecewise(x: ArrayLike, y: ArrayLike, *, split: float, **options: Any) -> PiecewiseLine:
    """Fit one line below and one above a break; ``options`` are those of ``fit_line``."""
    at, to = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    given = options.pop("families", None)
    groups = Families.independent(len(at)) if given is None else given
    groups = groups if isinstance(groups, Families) else Families.of(groups)
    left = at <= split
    if min(left.sum(), (~left & ~np.isnan(at)).sum()) < 3:
        raise UserError(f"a piecewise fit needs three models on each side of {split:g}")
    return PiecewiseLine(
        fit_line(at[left], to[left], families=groups.rows(left), **options),
        fit_line(at[~left], to[~left], families=groups.rows(~left), **options),
        split,
    )


RESAMPLED = 300
"""Resamples of families for the spread of Theil-Sen's line."""


def _errors(a: Floats, b: Floats, fitted: Floats, method: str, groups: Families, seed: int) -> dict[str, Any]:
    """Return covariance and degrees of freedom of slope and intercept; nothing for too few families."""
    if not np.isfinite(quantile(groups, estimated=2)):
        return {}
    if method == "theil-sen":
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(groups.count, np.full(groups.count, 1 / groups.count), size=RESAMPLED)
        others = np.column_stack(_estimates(a, b, drawn[:, groups.codes].astype(np.float64), method))
        others = others[np.isfinite(others).all(axis=1)]
        covariance = np.cov(others.T)
    else:
        others = np.column_stack(_estimates(a, b, groups.without_each(), method))
        if not np.isfinite(others).all():  # without one family all models lie on one x
            return {}
        covariance = jackknife_covariance(fitted, others)
    return {"covariance": covariance, "freedom": max(groups.effective_count - 2, 1.0)}


def _estimates(a: Floats, b: Floats, counts: Floats, method: str) -> tuple[Floats, Floats]:
    """Return slopes and intercepts of many samples at once, by how often each model is in each, (samples, n).

    NaN where the models of a sample do not differ in a.
    """
    flat = np.ptp(np.where(counts > 0, a, a[counts.argmax(axis=1)][:, None]), axis=1) <= 0
    with np.errstate(divide="ignore", invalid="ignore"):
        if method == "ols":
            slopes, intercepts = _weighted_line(a, b, counts)
        elif method == "huber":
            slopes, intercepts = _huber(a, b, counts)
        else:
            slopes, intercepts = _theil_sen(a, b, counts)
    return np.where(flat, np.nan, slopes), np.where(flat, np.nan, intercepts)


def _weighted_line(a: Floats, b: Floats, weights: Floats) -> tuple[Floats, Floats]:
    total = weights.sum(1)
    mean_a, mean_b = (weights * a).sum(1) / total, (weights * b).sum(1) / total
    off = a - mean_a[:, None]
    slopes = (weights * off * (b - mean_b[:, None])).sum(1) / (weights * off * off).sum(1)
    return slopes, mean_b - slopes * mean_a


def _weighted_median(values: Floats, counts: Floats) -> Floats:
    """Return the median of each row of values (rows, n), each as often as its count; NaN where nothing counts."""
    rows = np.arange(len(values))
    order = np.argsort(values, axis=1)
    ordered, times = values[rows[:, None], order], counts[rows[:, None], order].cumsum(axis=1)
    total = times[:, -1:]
    last = values.shape[1] - 1
    lower = np.minimum((times < (total + 1) // 2).sum(axis=1), last)
    upper = np.minimum((times < total // 2 + 1).sum(axis=1), last)
    middle = (ordered[rows, lower] + ordered[rows, upper]) / 2
    return np.where(total[:, 0] > 0, middle, np.nan)


def _theil_sen(a: Floats, b: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Median slope of all pairs that differ in a, and the median residual, of many samples at once."""
    first, second = np.triu_indices(len(a), 1)
    run = a[second] - a[first]
    first, second, run = first[run != 0], second[run != 0], run[run != 0]
    slope = (b[second] - b[first]) / run
    order = np.argsort(slope)
    first, second, slope = first[order], second[order], slope[order]
    slopes = np.empty(len(counts))
    for place, own in enumerate(counts):  # one row of pairs at a time: 210 models have 21,945
        times = (own[first] * own[second]).cumsum()
        at = np.searchsorted(times, [(times[-1] + 1) // 2, times[-1] // 2 + 1])
        slopes[place] = slope[np.minimum(at, len(slope) - 1)].mean() if times[-1] > 0 else np.nan
    return slopes, _weighted_median(b - slopes[:, None] * a, counts)


def _huber(a: Floats, b: Floats, counts: Floats, tolerance: float = 1e-10) -> tuple[Floats, Floats]:
    """Huber fits of many samples at once, as statsmodels' RLM fits one: IRLS with a re-estimated MAD scale.

    A library would fit one sample at a time; a page of panels with a sample a family each needs all at once.
    """
    slopes, intercepts = _weighted_line(a, b, counts)
    active = np.flatnonzero(np.isfinite(slopes))
    for _ in range(200):
        times = counts[active]
        residual = np.abs(b - slopes[active, None] * a - intercepts[active, None])
        scale = _weighted_median(residual, times)[:, None] / MAD_OF_NORMAL
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = times * np.minimum(1.0, HUBER_T * scale / residual)
        # a line that passes through more than half of the points exactly has scale 0: it is the fit
        exact = scale[:, 0] <= 1e-13
        weights[exact] = times[exact]
        new_slopes, new_intercepts = _weighted_line(a, b, weights)
        moved = np.maximum(np.abs(new_slopes - slopes[active]), np.abs(new_intercepts - intercepts[active]))
        kept = exact | ~np.isfinite(new_slopes)
        going = active[~kept]
        slopes[going], intercepts[going] = new_slopes[~kept], new_intercepts[~kept]
        active = active[~kept & (moved > tolerance)]
        if not len(active):
            break
    return slopes, intercepts
