"""Two models on the same images: their mean difference, its interval and its p-value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics._checks import fraction, same_length, vector, whole_number

Floats = NDArray[np.float64]

RESAMPLED_ROWS = 1000
"""Fewer images are resampled; more have the skewness of their differences removed by a formula."""
LEAST_ROWS = 200
"""Images below which differences that are not just right or wrong have no interval and no p-value.

Where 3 % of the images make up the difference, as in log-likelihoods, no method keeps its promise on fewer
(``benchmarks/coverage.py``).
"""


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two models on the same images.

    Attributes
    ----------
    difference
        Mean of the first less that of the second.
    low, high
        Interval of it; NaN where there are too few images.
    p_value
        Two-sided, of "both means are equal"; NaN as for the interval. Whether the two columns are exchangeable, or
        their differences symmetric, plays no part.
    level
        Nominal coverage of the interval.
    n
        Images.
    method
        ``mcnemar mid-p`` with the interval of Bonett and Price (right or wrong), ``bootstrap-t``, or ``hall`` (many
        images); ``equal`` where no image differs, ``too few`` below `LEAST_ROWS` images.
    """

    difference: float
    low: float
    high: float
    p_value: float
    level: float
    n: int
    method: str


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    rng: np.random.Generator,
    replicates: int = 10_000,
    level: float = 0.95,
) -> PairedDifference:
    """Return the mean difference of two per-image columns, with interval and p-value.

    A sign flip or permutation test asks whether the two columns are exchangeable, and rejects skewed differences of
    equal means far too often; here the means alone are compared.

    Parameters
    ----------
    first, second
        (n,) a number per image of each model (right or wrong, log-likelihood ...), on the same images.
    rng
        Seeded generator of the bootstrap (fewer than `RESAMPLED_ROWS` images that are not just right or wrong).
    replicates
        Resamples of the bootstrap.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), no rows, lengths that differ.

    References
    ----------
    Fagerland, Lydersen and Laake, The McNemar test for binary matched-pairs data, BMC Medical Research Methodology 13,
    2013. Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data, Journal of Educational and Behavioral Statistics 37, 2012. Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, section 12.5 (bootstrap-t). Hall, On the removal of skewness by transformation, Journal of the
    Royal Statistical Society B 54, 1992.
    """
    level, replicates = fraction("level", level, open_ends=True), whole_number("replicates", replicates)
    a, b = vector("first", first).astype(np.float64), vector("second", second).astype(np.float64)
    same_length("first", a.size, "second", b.size)
    gaps = a - b
    n, estimate = gaps.size, float(gaps.mean())
    if not gaps.any():
        return PairedDifference(0.0, 0.0, 0.0, 1.0, level, n, "equal")
    if np.isin(gaps, (-1.0, 0.0, 1.0)).all():
        wins, losses = int(np.count_nonzero(gaps > 0)), int(np.count_nonzero(gaps < 0))
        return PairedDifference(
            estimate, *_bonett_price(wins, losses, n, level), _mcnemar(wins, losses), level, n, "mcnemar mid-p"
        )
    if n < LEAST_ROWS or np.ptp(gaps) == 0:
        return PairedDifference(estimate, math.nan, math.nan, math.nan, level, n, "too few")
    if n < RESAMPLED_ROWS:
        return PairedDifference(estimate, *_bootstrap_t(gaps, rng, replicates, level), level, n, "bootstrap-t")
    return PairedDifference(estimate, *without_skewness(gaps, level), level, n, "hall")


def _mcnemar(wins: int, losses: int) -> float:
    """Return McNemar's mid-p value."""
    from scipy.stats import binom

    fewer, both = min(wins, losses), wins + losses
    if wins == losses:
        return 1.0 - float(binom.pmf(fewer, both, 0.5)) / 2
    return float(2 * binom.cdf(fewer, both, 0.5) - binom.pmf(fewer, both, 0.5))


def _bonett_price(wins: int, losses: int, n: int, level: float) -> tuple[float, float]:
    from scipy.special import ndtri

    more, less = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    reach = float(ndtri(0.5 + level / 2)) * math.sqrt((more + less - (more - less) ** 2) / (n + 2))
    return max(-1.0, more - less - reach), min(1.0, more - less + reach)


def _bootstrap_t(gaps: Floats, rng: np.random.Generator, replicates: int, level: float) -> tuple[float, float, float]:
    """Return the equal-tailed bootstrap-t interval and the p-value whose acceptance it is."""
    n, mean = gaps.size, float(gaps.mean())
    error = float(gaps.std(ddof=1)) / math.sqrt(n)
    parts = []
    for start in range(0, replicates, 512):
        drawn = gaps[rng.integers(0, n, (min(512, replicates - start), n))]
        spread = drawn.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((drawn.mean(axis=1) - mean) / spread)
    studentised = np.concatenate(parts)
    studentised = studentised[np.isfinite(studentised)]  # a resample of one image repeated has no spread
    tail = (1 - level) / 2
    small, large = (float(q) for q in np.quantile(studentised, (tail, 1 - tail)))
    observed, count = mean / error, studentised.size
    below = (int(np.count_nonzero(studentised <= observed)) + 1) / (count + 1)
    above = (int(np.count_nonzero(studentised >= observed)) + 1) / (count + 1)
    return mean - large * error, mean - small * error, min(1.0, 2 * min(below, above))


def without_skewness(gaps: Floats, level: float) -> tuple[float, float, float]:
    """Return the interval and p-value of Hall's transformed t statistic."""
    from scipy.special import stdtr, stdtrit

    n, mean = gaps.size, float(gaps.mean())
    centred = gaps - mean
    squares = centred * centred
    deviation = math.sqrt(float(squares.mean()))
    skewness = float((squares * centred).mean()) / deviation**3  # numpy's general power takes twenty times as long
    root = math.sqrt(n)

    def transformed(w: float) -> float:
        return root * (w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / (6 * n))

    def back(t: float) -> float:
        if abs(skewness) < 1e-6:
            return t / root
        return 3 / skewness * (math.cbrt(1 + skewness * (t / root - skewness / (6 * n))) - 1)

    quantile = float(stdtrit(n - 1, 0.5 + level / 2))
    p_value = 2 * float(stdtr(n - 1, -abs(transformed(mean / deviation))))
    return mean - deviation * back(quantile), mean - deviation * back(-quantile), p_value
