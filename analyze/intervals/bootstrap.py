"""The bootstrap over images: weights that all models share, intervals from replicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics._arrays import as_array, numbers
from analyze.metrics._checks import choice, fraction, number, whole_number
from analyze.metrics.proportions import Interval
from closerlook_common.errors import UserError


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
        self.n, self.replicates = whole_number("n", n), whole_number("replicates", replicates)
        self.seed = whole_number("seed", seed, least=0, most=2**63 - 1)

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
    level, estimate = fraction("level", level, open_ends=True), number("estimate", estimate)
    choice("method", method, ("percentile", "basic"))
    values = numbers("replicates", replicates, 1).astype(np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise UserError("the number is undefined on every bootstrap resample: there is no interval")
    low, high = quantiles(values, (1 - level) / 2, (1 + level) / 2)
    if method == "percentile":
        return Interval(low, high, level, method)
    return Interval(2 * estimate - high, 2 * estimate - low, level, method)


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
    arrays = [as_array("columns", column) for column in columns]
    lengths = [array.shape[0] if array.ndim else 0 for array in arrays]
    if not lengths or len(set(lengths)) > 1 or not lengths[0]:
        raise UserError(f"columns must be arrays of one length, with rows; got lengths {lengths}")
    n, replicates = lengths[0], whole_number("replicates", replicates)
    answer = np.full(replicates, np.nan)
    for r in range(replicates):
        rows = rng.integers(0, n, n)
        try:
            answer[r] = statistic(*(array[rows] for array in arrays))
        except UserError:
            continue
    return answer
