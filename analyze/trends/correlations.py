"""Correlations over models that come in families: Pearson, Spearman, Kendall, weighted Kendall, R^2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyze.trends.dependence import (
    FEWEST_FOR_TEST,
    FLIPS,
    described,
    flip_p_value,
    jackknife_error,
    quantile,
)
from analyze.trends.families import INDEPENDENT, Families, effective_models
from analyze.trends.scales import transform
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError, nearest

Method = Literal["pearson", "spearman", "kendall", "weighted_kendall", "r2"]
METHODS: tuple[str, ...] = get_args(Method)
TITLES = {
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "kendall": "Kendall τ",
    "weighted_kendall": "weighted τ",
    "r2": "R²",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """How two numbers go together over models.

    Attributes
    ----------
    method
        One of ``METHODS``.
    value
        In [-1, 1] ([0, 1] for R^2); NaN where fewer than three models or a constant side leave it undefined.
    low, high
        Interval over families of models (jackknife on Fisher's z); NaN where there is none, as ``interval`` says.
    p_value
        Of no association, two-sided, over families of models: signs of families are flipped (Kendall: the
        jackknife's t); NaN for weighted Kendall and fewer than six families.
    n
        Number of models.
    families
        Number of families that they come in; n where they are taken as independent.
    n_effective
        Independent models that they are worth (:func:`analyze.trends.families.effective_models`).
    interval
        How the interval was made, or why there is none.
    level
        Coverage of the interval.
    """

    method: str
    value: float
    low: float
    high: float
    p_value: float
    n: int
    families: int = 0
    n_effective: float = float("nan")
    interval: str = ""
    level: float = 0.95

    def squared(self) -> Correlation:
        """Return R^2 of Pearson's r, with the squared interval: from 0 where r's holds 0."""
        ends = (self.low**2, self.high**2)
        low = 0.0 if self.low < 0 < self.high else min(ends)
        return replace(self, method="r2", value=self.value**2, low=low, high=max(ends))

    def __repr__(self) -> str:
        """Return one readable line."""
        among = counted(self.n, "model")
        if self.families not in (0, self.n):
            among += f" in {self.families} families, worth {self.n_effective:.0f} independent ones"
        ends = f" [{self.low:.3f}, {self.high:.3f}]" if np.isfinite(self.low) else ""
        return f"{TITLES[self.method]} = {self.value:.3f}{ends} over {among}"


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "pearson",
    x_scale: str = "linear",
    y_scale: str = "linear",
    families: ArrayLike | Families | None = None,
    flips: int = FLIPS,
    level: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Correlate two numbers over models.

    Parameters
    ----------
    x, y
        One value a model, shape (n_models,). Pairs with a NaN are left out.
    method
        ``pearson`` (on the given scales), ``spearman`` (mid-ranks), ``kendall`` (tau-b), ``weighted_kendall``
        (Vigna's hyperbolic weighting: the ranks of the largest values count most, averaged over both orders),
        ``r2`` (of the straight line on the given scales: Pearson squared).
    x_scale, y_scale
        ``linear``, ``logit``, ``probit`` or ``log``: matters to Pearson and R^2 only.
    families
        (n_models,) a label each: models that share one are not independent. None takes all models as independent, with
        scipy's p-values.
    flips, seed
        Signs of families that are drawn for the p-value; 0 for neither interval nor p-value.
    level
        Coverage of the interval.

    Raises
    ------
    UserError
        Unknown method, unequal lengths, infinite values.
    """
    check_method(method)
    if method == "r2":
        scales: dict[str, Any] = {"x_scale": x_scale, "y_scale": y_scale, "level": level}
        return correlation(x, y, method="pearson", families=families, flips=flips, seed=seed, **scales).squared()
    a, b, kept = _pairs(x, y)
    n = len(a)
    groups = _families(families, kept)
    if n < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(method, np.nan, np.nan, np.nan, np.nan, n, groups.count, level=level)
    if method == "pearson":
        a, b = transform(a, x_scale), transform(b, y_scale)
    value, ordinary = _value(a, b, method)
    if not flips:
        return Correlation(method, value, np.nan, np.nan, np.nan, n, groups.count, level=level)
    ranked = (a, b) if method == "pearson" else (stats.rankdata(a), stats.rankdata(b))
    low, high, by_t = _interval(a, b, value, method, groups, level)
    if groups.by == INDEPENDENT:
        p_value = ordinary
    elif method == "weighted_kendall" or groups.count < FEWEST_FOR_TEST:
        p_value = float("nan")
    elif method == "kendall":
        p_value = by_t
    else:
        design = np.column_stack([np.ones(n), ranked[0]])
        p_value = flip_p_value(design, ranked[1], groups, [1], flips=flips, seed=seed)
    return Correlation(
        method,
        value,
        low,
        high,
        p_value,
        n,
        groups.count,
        effective_models(groups, *ranked),
        described(groups, level) if np.isfinite(low) or groups.count < 5 else "none: the coefficient is at its end",
        level,
    )


def _families(families: ArrayLike | Families | None, kept: NDArray[np.bool_]) -> Families:
    if families is None:
        return Families.independent(int(kept.sum()))
    groups = families if isinstance(families, Families) else Families.of(families)
    if len(groups) != len(kept):
        raise UserError(f"a correlation of {counted(len(kept), 'model')} needs as many families, got {len(groups)}")
    return groups.rows(kept)


def _value(a: Floats, b: Floats, method: str) -> tuple[float, float]:
    """Return the coefficient and its p-value over independent models."""
    if method == "weighted_kendall":
        return float(stats.weightedtau(a, b).statistic), float("nan")
    found = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}[method](a, b)
    return float(found.statistic), float(found.pvalue)


def _interval(
    a: Floats, b: Floats, value: float, method: str, groups: Families, level: float
) -> tuple[float, float, float]:
    """Return the ends of the interval, and the p-value of t on Fisher's z; NaN where there are none."""
    reach = quantile(groups, level=level)
    if not np.isfinite(reach) or abs(value) > 1 - 1e-12:
        return (float("nan"),) * 3
    without = _weighted(a, b, method, groups.without_each())
    if not np.isfinite(without).all():
        return (float("nan"),) * 3
    z = float(np.arctanh(value))
    error = jackknife_error(z, np.arctanh(np.clip(without, -1 + 1e-9, 1 - 1e-9)))
    freedom = max(groups.effective_count - 1, 1.0)
    p_value = float(2 * stats.t.sf(abs(z) / error, freedom)) if error > 0 else 0.0
    return float(np.tanh(z - reach * error)), float(np.tanh(z + reach * error)), p_value


def check_method(method: str) -> str:
    """Return the method, or raise a ``UserError`` that names those that exist."""
    if method not in METHODS:
        raise UserError(f"no correlation {method!r}{nearest(method, METHODS, list_all=True)}")
    return method


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(f"a correlation needs two lists of equal length, got shapes {a.shape} and {b.shape}")
    keep = ~(np.isnan(a) | np.isnan(b))
    a, b = a[keep], b[keep]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("a correlation needs finite values; one of the models has an infinite one")
    return a, b, keep


def _weighted(a: Floats, b: Floats, method: str, counts: Floats) -> Floats:
    """Return the coefficient of many samples at once, (samples,), by how often each model is in each, (samples, n)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if method == "pearson":
            return _weighted_pearson(np.broadcast_to(a, counts.shape), np.broadcast_to(b, counts.shape), counts)
        if method == "spearman":
            return _weighted_pearson(counts @ _below(a), counts @ _below(b), counts)
        if method == "kendall":
            side_a, side_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)

            spread = np.sqrt(_pairs_of(counts, np.abs(side_a)) * _pairs_of(counts, np.abs(side_b)))
            return np.asarray(_pairs_of(counts, side_a * side_b) / spread)
        first = _weighted_tau(a, b, counts)
        return (first + _weighted_tau(b, a, counts)) / 2


def _weighted_tau(a: Floats, b: Floats, counts: Floats) -> Floats:
    """Vigna's tau of every replicate, ranks by a, then b: hyperbolic weights 1 / rank, added over the two of
    a pair.

    A model drawn c times takes c ranks in a row, so the weight of all its copies is a difference of harmonic
    numbers.
    """
    order = np.lexsort((b, a))[::-1]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(a) + 1))])
    last = np.cumsum(counts[:, order], axis=1).astype(np.int64)
    weights = np.empty_like(counts)
    weights[:, order] = harmonic[last] - harmonic[last - counts[:, order].astype(np.int64)]
    side_a, side_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)

    def product(signs: Floats) -> Floats:
        return np.asarray(np.einsum("ij,ij->i", weights @ signs, counts))

    spread = np.sqrt(product(np.abs(side_a)) * product(np.abs(side_b)))
    return np.asarray(product(side_a * side_b) / spread)


def _pairs_of(counts: Floats, signs: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", counts @ signs, counts))


def _below(values: Floats) -> Floats:
    """Matrix whose product with draw counts gives the mid-rank of every model in each replicate."""
    return np.asarray((values[:, None] < values) + 0.5 * (values[:, None] == values))


def _weighted_pearson(a: Floats, b: Floats, weights: Floats) -> Floats:
    total = weights.sum(1, keepdims=True)
    a = a - (weights * a).sum(1, keepdims=True) / total
    b = b - (weights * b).sum(1, keepdims=True) / total
    spread = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    drawn = (weights * a * b).sum(1) / spread
    flat = spread <= 1e-12 * np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(flat, np.nan, drawn)
