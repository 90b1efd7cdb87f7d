"""Intervals and p-values over models that come in families: leave out one family at a time, flip signs of families."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analyze.trends.families import INDEPENDENT, Families
from closerlook_common.console.terminal import counted

Floats = NDArray[np.float64]

FEWEST_FOR_INTERVAL = 5
"""Families below which nothing has an interval: it would have to be several times as wide to keep its promise."""
FEWEST_FOR_LEVEL = 10
"""Families below which intervals cover more than their level (benchmarks/coverage_families.py)."""
FEWEST_FOR_TEST = 6
"""Families below which nothing has a p-value: with five, flips of signs cannot give one below 0.05."""
FLIPS = 1999
_IN_THE_TAIL = 10
"""Flips that have to reach the observed statistic for their share to be the p-value; below, t or F continues it."""


def quantile(families: Families, *, estimated: int = 1, level: float = 0.95) -> float:
    """Return the quantile of t for a two-sided interval; NaN where there are too few families.

    The degrees of freedom are the effective number of families less the coefficients that are estimated: families of
    very unequal size count as fewer.
    """
    if families.count < FEWEST_FOR_INTERVAL:
        return float("nan")
    return float(stats.t.ppf(0.5 + level / 2, max(families.effective_count - estimated, 1.0)))


def jackknife_error(estimate: float, without_each: Floats) -> float:
    """Return the standard error of an estimate from those without each family, (families,)."""
    count = len(without_each)
    return float(np.sqrt((count - 1) / count * np.sum((without_each - estimate) ** 2)))


def jackknife_covariance(estimate: Floats, without_each: Floats) -> Floats:
    """Return the covariance (k, k) of coefficients (k,) from those without each family, (families, k)."""
    count = len(without_each)
    off = without_each - estimate
    return np.asarray((count - 1) / count * (off.T @ off))


def described(families: Families, level: float = 0.95, method: str = "jackknife") -> str:
    """Return how an interval over these families was made, or why there is none."""
    if families.count < FEWEST_FOR_INTERVAL:
        what = ("model", "models") if families.by == INDEPENDENT else ("family of models", "families of models")
        return f"none: {counted(families.count, *what)}, an interval needs {FEWEST_FOR_INTERVAL}"
    wide = families.count < FEWEST_FOR_LEVEL or method == "woodruff"
    how = f"{method} {'at least ' * wide}{100 * level:g} %"
    if families.by == INDEPENDENT:
        return f"{how}: models taken as independent"
    return f"{how}: {families.count} families by {families.by}"


@lru_cache(maxsize=32)
def signs(count: int, flips: int, seed: int) -> Floats:
    """Return (1 + flips, count) signs of families, those of no flip first.

    All of them follow where they are no more than asked for, else as many as asked for, drawn.
    """
    if 2**count <= flips + 1:
        flipped = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        flipped = np.random.default_rng(seed).integers(0, 2, (flips, count), dtype=np.int8)
    return np.concatenate([np.ones((1, count)), 1.0 - 2.0 * flipped])


def share_that_reach(observed: float, flipped: Floats, count: int, *, continued: float) -> float:
    """Return the p-value of an observed statistic among those of flipped signs.

    Parameters
    ----------
    observed, flipped
        The statistic, and (flips,) of drawn or of all signs; larger speaks against the null hypothesis.
    count
        Families.
    continued
        The p-value by t or F, which goes on where fewer than ten of the drawn flips reach the observed statistic.
    """
    if not np.isfinite(observed):
        return float("nan")
    reach = int(np.count_nonzero(flipped >= observed * (1 - 1e-9)))
    if len(flipped) == 2**count:
        return reach / len(flipped)
    drawn = (reach + 1) / (len(flipped) + 1)
    return min(drawn, continued) if reach < _IN_THE_TAIL and np.isfinite(continued) else drawn


def flip_p_value(
    design: Floats, y: Floats, families: Families, tested: list[int], *, flips: int = FLIPS, seed: int = 0
) -> float:
    """Test whether coefficients of a least-squares fit are zero, over models that come in families.

    The residuals under the null hypothesis are multiplied by one random sign a family, which leaves everything within
    a family as it is; the Wald statistic, with errors that allow for families, is compared with those of the flips.

    Parameters
    ----------
    design, y
        (n, k) columns of the fit and (n,) what it fits.
    families
        Of the n models.
    tested
        Columns whose coefficients are zero under the null hypothesis.
    flips, seed
        Signs to draw; all of them where there are few families.

    Returns
    -------
    float
        NaN for fewer than `FEWEST_FOR_TEST` families, or where the fit or its errors are singular.

    References
    ----------
    Cameron, Gelbach and Miller, Bootstrap-based improvements for inference with clustered errors, Review of Economics
    and Statistics 90, 2008 (the wild cluster bootstrap, restricted).
    """
    count, width = families.count, design.shape[1]
    if count < FEWEST_FOR_TEST or np.linalg.matrix_rank(design) < width:
        return float("nan")
    others = [column for column in range(width) if column not in tested]
    start = np.linalg.lstsq(design[:, others], y, rcond=None)[0] if others else np.zeros(0)
    residual = y - design[:, others] @ start
    inverse = np.linalg.inv(design.T @ design)
    scores = families.sums(design * residual[:, None])
    moments = families.sums(design[:, :, None] * design[:, None, :])
    pulls = scores @ inverse[:, tested]  # what each family adds to the tested coefficients
    back = np.einsum("qk,fkl->fql", inverse[tested], moments)
    # The first row is what was observed: no sign is flipped.
    weights = signs(count, flips, seed)
    moved, estimate = weights @ (scores @ inverse), weights @ pulls
    size = len(tested)
    both = (back[:, :, None] * pulls[:, None, :, None]).reshape(count, -1)
    cross = np.einsum("bqpl,bl->bqp", (weights @ both).reshape(-1, size, size, width), moved)
    square = np.einsum("fql,fpm->qplm", back, back).reshape(size * size * width, width)
    folded = np.einsum("bsl,bl->bs", (moved @ square.T).reshape(-1, size * size, width), moved)
    meat = pulls.T @ pulls - cross - np.swapaxes(cross, 1, 2) + folded.reshape(-1, size, size)
    if not np.trace(meat[0]) > 0 or np.linalg.matrix_rank(meat[0]) < size:
        return float("nan")
    wald = _wald(estimate, meat)
    continued = float(stats.f.sf(wald[0] / size, size, max(families.effective_count - 1, 1.0)))
    return share_that_reach(float(wald[0]), wald[1:], count, continued=continued)


def _wald(estimate: Floats, meat: Floats) -> Floats:
    """Return ``e' M^-1 e`` of each row of (flips, q) and (flips, q, q); infinite where M vanishes."""
    size = estimate.shape[1]
    if size > 2:
        solved = np.einsum("bqp,bp->bq", np.linalg.pinv(meat, rcond=1e-10, hermitian=True), estimate)
        return np.asarray(np.einsum("bq,bq->b", estimate, solved))
    with np.errstate(divide="ignore", invalid="ignore"):
        if size == 1:
            found = estimate[:, 0] ** 2 / meat[:, 0, 0]
        else:
            a, b, d = meat[:, 0, 0], meat[:, 0, 1], meat[:, 1, 1]
            first, second = estimate.T
            found = (d * first**2 - 2 * b * first * second + a * second**2) / (a * d - b * b)
    # A flip whose errors vanish reaches everything: it speaks for the null hypothesis, not against it.
    return np.where(np.isnan(found) | (found < 0), np.inf, found)
