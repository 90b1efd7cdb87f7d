"""How sure a number is: intervals of proportions, bootstrap over images, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    low, high
        Its ends.
    level
        Nominal coverage, 0.95 by default.
    method
        How it was made: ``wilson``, ``clopper-pearson``, ``percentile``, ``basic``.
    """

    low: float
    high: float
    level: float
    method: str


def _proportion(successes: int, n: int, level: float) -> None:
    if not (0 <= successes <= n and n >= 1):
        raise UserError(f"a proportion needs 0 <= successes <= n and n >= 1; got {successes} of {n}")
    _level(level)


def _level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level must lie strictly between 0 and 1; got {level!r}")


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (1927): good coverage for every n, never outside [0, 1].

    Parameters
    ----------
    successes, n
        Right images, and images.
    level
        Nominal coverage.
    """
    from scipy.special import ndtri

    _proportion(successes, n, level)
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    rate = successes / n
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return Interval(low, 1.0 if successes == n else min(1.0, middle + half), level, "wilson")


def clopper_pearson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a proportion (1934), whose coverage is never below ``level``."""
    from scipy.special import betaincinv

    _proportion(successes, n, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(low, high, level, "clopper-pearson")


def proportion_interval(
    successes: int, n: int, *, level: float = 0.95, method: Literal["wilson", "clopper-pearson"] = "wilson"
) -> Interval:
    """Return the named interval of a proportion."""
    if method not in ("wilson", "clopper-pearson"):
        raise UserError(f"method must be wilson or clopper-pearson; got {method!r}")
    return (wilson_interval if method == "wilson" else clopper_pearson_interval)(successes, n, level=level)


class BootstrapWeights:
    """Seeded multinomial weights of a bootstrap over images: how often each image is drawn in each replicate.

    The same ``n``, ``replicates`` and ``seed`` give the same weights, whatever the block size, so that all
    models of a dataset share them and their differences are paired.

    Parameters
    ----------
    n
        Images.
    replicates
        Number of resamples.
    seed
        Whole number; replicate r depends on (seed, r) alone.
    """

    def __init__(self, n: int, *, replicates: int = 1000, seed: int = 0) -> None:
        if n < 1 or replicates < 1 or seed < 0:
            raise UserError(f"a bootstrap needs images, replicates and a seed; got {n}, {replicates}, {seed}")
        self.n, self.replicates, self.seed = n, replicates, seed

    def blocks(self, size: int = 256) -> Iterator[NDArray[np.uint8]]:
        """Yield (n, <= ``size``) uint8 counts, one column a replicate, all replicates in turn."""
        for start in range(0, self.replicates, size):
            stop = min(start + size, self.replicates)
            block = np.empty((stop - start, self.n), np.uint8)
            for replicate in range(start, stop):
                rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, replicate])))
                drawn = rng.integers(0, self.n, self.n, dtype=np.uint32)
                # A count above 255 needs n in the hundreds and a chance below 1e-500.
                block[replicate - start] = np.minimum(np.bincount(drawn, minlength=self.n), 255)
            yield np.ascontiguousarray(block.T)

    def all(self) -> NDArray[np.uint8]:
        """Return all weights at once, (n, replicates) uint8: n x replicates bytes."""
        return next(self.blocks(self.replicates))


def quantiles(values: NDArray[np.float64], *shares: float) -> list[float]:
    """Return quantiles with straight lines between order statistics, as ``np.quantile`` does, sorting once.

    A table has a hundred thousand intervals, and numpy's general function takes longer than its sort.
    """
    ordered = np.sort(values)
    found = []
    for share in shares:
        place = share * (ordered.size - 1)
        below = min(int(place), ordered.size - 1)
        low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
        part = place - below
        found.append(low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part))
    return found


def bootstrap_interval(
    estimate: float,
    replicates: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["percentile", "basic"] = "percentile",
) -> Interval:
    """Return the interval of an estimate from its bootstrap replicates.

    Parameters
    ----------
    estimate
        The number on the images themselves.
    replicates
        (R,) the number on each resample; NaN where a resample left it undefined (those are set aside).
    level
        Nominal coverage.
    method
        ``percentile``: quantiles of the replicates. ``basic``: reflected about the estimate, which takes
        the upward bias of binned calibration errors off rather than doubling it.

    Raises
    ------
    UserError
        Where no replicate is defined.
    """
    _level(level)
    values = np.asarray(replicates, np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise UserError("the number is undefined on every bootstrap resample: there is no interval")
    low, high = quantiles(values, (1 - level) / 2, (1 + level) / 2)
    if method == "percentile":
        return Interval(low, high, level, method)
    if method == "basic":
        return Interval(2 * estimate - high, 2 * estimate - low, level, method)
    raise UserError(f"method must be percentile or basic; got {method!r}")


def bootstrap(
    statistic: Callable[..., float],
    *columns: NDArray[Any],
    rng: np.random.Generator,
    replicates: int = 1000,
) -> NDArray[np.float64]:
    """Return ``statistic`` of resampled rows, for statistics without a weighted version.

    Parameters
    ----------
    statistic
        Takes the columns, returns a number; where it raises UserError the replicate is NaN.
    columns
        Arrays of one length along the first axis, resampled together.
    rng
        Seeded generator.
    replicates
        Number of resamples.
    """
    if not columns or any(len(c) != len(columns[0]) for c in columns) or len(columns[0]) == 0:
        raise UserError(f"bootstrap needs columns of one length; got lengths {[len(c) for c in columns]}")
    n = len(columns[0])
    answer = np.full(replicates, np.nan)
    for r in range(replicates):
        rows = rng.integers(0, n, n)
        try:
            answer[r] = statistic(*(column[rows] for column in columns))
        except UserError:
            continue
    return answer


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
    from analyze.metrics._checks import same_length, vector

    _level(level)
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
