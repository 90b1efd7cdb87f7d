"""Correlations over models, each with a bootstrap interval: Pearson, Spearman, Kendall, weighted Kendall,
R^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyze.trends.scales import transform
from cache_schema.errors import UserError, nearest

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
        Percentile bootstrap interval over models; NaN where undefined.
    p_value
        Of no association, two-sided (scipy's); NaN for weighted Kendall, which has none.
    n
        Number of models.
    level
        Coverage of the interval.
    """

    method: str
    value: float
    low: float
    high: float
    p_value: float
    n: int
    level: float = 0.95

    def __repr__(self) -> str:
        """Return one readable line."""
        return (
            f"{TITLES[self.method]} = {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.n} models"
        )


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "pearson",
    x_scale: str = "linear",
    y_scale: str = "linear",
    n_boot: int = 1000,
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
    n_boot
        Bootstrap replicates over models; 0 for no interval.
    level
        Coverage of the percentile interval.
    seed
        Of the bootstrap.

    Raises
    ------
    UserError
        Unknown method, unequal lengths, infinite values.
    """
    check_method(method)
    a, b = _pairs(x, y)
    n = len(a)
    if n < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(method, np.nan, np.nan, np.nan, np.nan, n, level)
    if method in ("pearson", "r2"):
        a, b = transform(a, x_scale), transform(b, y_scale)
        found = stats.pearsonr(a, b)
        value, p_value = float(found.statistic), float(found.pvalue)
        value = value**2 if method == "r2" else value
    elif method == "spearman":
        found = stats.spearmanr(a, b)
        value, p_value = float(found.statistic), float(found.pvalue)
    elif method == "kendall":
        found = stats.kendalltau(a, b)
        value, p_value = float(found.statistic), float(found.pvalue)
    else:
        value, p_value = float(stats.weightedtau(a, b).statistic), np.nan
    low = high = np.nan
    if n_boot:
        drawn = _replicates(a, b, method, n_boot, seed)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) > n_boot // 2:
            low, high = (float(v) for v in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    return Correlation(method, value, low, high, p_value, n, level)


def check_method(method: str) -> str:
    """Return the method, or raise a ``UserError`` that names those that exist."""
    if method not in METHODS:
        raise UserError(f"no correlation {method!r}{nearest(method, METHODS, told=True)}")
    return method


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(f"a correlation needs two lists of equal length, got shapes {a.shape} and {b.shape}")
    keep = ~(np.isnan(a) | np.isnan(b))
    a, b = a[keep], b[keep]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("a correlation needs finite values; one of the models has an infinite one")
    return a, b


def _replicates(a: Floats, b: Floats, method: str, n_boot: int, seed: int) -> Floats:
    """Bootstrap replicates by how often each model is drawn: all of them are matrix products, but weighted
    Kendall.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=n_boot).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if method in ("pearson", "r2"):
            drawn = _weighted_pearson(
                np.broadcast_to(a, counts.shape), np.broadcast_to(b, counts.shape), counts
            )
            return drawn**2 if method == "r2" else drawn
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
