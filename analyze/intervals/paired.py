"""Two models on the same images: their mean difference, its interval and its permutation p-value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analyze.intervals.bootstrap import bootstrap_interval
from analyze.metrics._checks import fraction, same_length, vector


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two models on the same images.

    Attributes
    ----------
    difference
        Number of the first less that of the second.
    low, high
        Bootstrap interval of it.
    p_value
        Two-sided permutation p-value of "the two are exchangeable image by image", (b + 1) / (m + 1).
    level
        Nominal coverage of the interval.
    n
        Images.
    """

    difference: float
    low: float
    high: float
    p_value: float
    level: float
    n: int


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    rng: np.random.Generator,
    replicates: int = 1000,
    permutations: int = 10_000,
    level: float = 0.95,
) -> PairedDifference:
    """Return the mean difference of two per-image columns, with interval and permutation p-value.

    Parameters
    ----------
    first, second
        (n,) a number per image of each model (right or wrong, log-likelihood ...), on the same images.
    rng
        Seeded generator.
    replicates, permutations
        Resamples for the interval, sign flips for the p-value.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), no rows, lengths that differ.
    """
    fraction("level", level, open_ends=True)
    a, b = vector("first", first).astype(np.float64), vector("second", second).astype(np.float64)
    same_length("first", a.size, "second", b.size)
    gaps = a - b
    estimate = float(gaps.mean())
    # Only distinct values matter: equal differences are drawn and flipped by their counts, which is the
    # same law.
    values, counts = np.unique(gaps, return_counts=True)
    n = gaps.size
    resampled = np.empty(replicates)
    chance = counts / n
    for r in range(replicates):
        resampled[r] = rng.multinomial(n, chance) @ values / n
    interval = bootstrap_interval(estimate, resampled, level=level)
    sizes, members = np.unique(np.abs(values), return_inverse=True)
    totals = np.bincount(members, weights=counts).astype(np.int64)
    beyond = 0
    for start in range(0, permutations, 256):
        some = min(256, permutations - start)
        kept = rng.binomial(totals, 0.5, size=(some, totals.size))
        flipped = (2 * kept - totals) @ sizes / n
        beyond += int(np.count_nonzero(np.abs(flipped) >= abs(estimate) * (1 - 1e-12)))
    return PairedDifference(estimate, interval.low, interval.high, (beyond + 1) / (permutations + 1), level, n)
