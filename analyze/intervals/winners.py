"""Which of several numbers cannot be distinguished from the best one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, studentized_range

Floats = NDArray[np.float64]

ALPHA = 0.05


def as_good_as_best(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, *, higher: bool, level: float = 0.95, alpha: float = ALPHA
) -> NDArray[np.bool_]:
    """Return which numbers cannot be distinguished from the best, by their intervals.

    The distance from the best is compared with the errors of both numbers on the sides that face each other, as those
    of independent numbers; the best was picked among all k, so the distance has to pass
    the studentised range of k numbers (Tukey). Numbers of the same images err alike: a paired test distinguishes more.

    Parameters
    ----------
    values, low, high
        (k,) numbers with the ends of their intervals; NaN where there is none. Without an interval a number is only as
        good as the best where it equals it.
    higher
        Whether higher is better.
    level
        Coverage of the intervals.
    alpha
        Probability of setting apart any number that is as good as the best.

    Returns
    -------
    ndarray of bool
        (k,), the best included; false for NaN.

    References
    ----------
    Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27, 2008;
    Tukey, The problem of multiple comparisons, 1953.
    """
    v, ends = np.asarray(values, dtype=np.float64), (np.asarray(low, np.float64), np.asarray(high, np.float64))
    known = np.isfinite(v)
    if not known.any():
        return np.zeros(v.shape, np.bool_)
    sign = 1.0 if higher else -1.0
    best = int(np.nanargmax(np.where(known, sign * v, np.nan)))
    below, above = (v - ends[0], ends[1] - v) if higher else (ends[1] - v, v - ends[0])
    gap = sign * (v[best] - v)
    error = np.hypot(below[best], above) / float(norm.ppf(0.5 + level / 2))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        p_values = np.where(gap == 0, 1.0, 2 * norm.sf(gap / error))
    # Without an interval nothing is known of a distance: it counts, unless there is none.
    p_values = np.where(np.isfinite(p_values), p_values, 0.0)
    kept = known & (p_values >= smallest(int(known.sum()), alpha))
    kept[best] = True
    return np.asarray(kept)


def as_good_by_test(
    values: Sequence[float], p_value: Callable[[int, int], float], *, higher: bool, alpha: float = ALPHA
) -> NDArray[np.bool_]:
    """Return which numbers cannot be distinguished from the best, by a test of each against it.

    Parameters
    ----------
    values
        (k,) numbers.
    p_value
        (place of the best, place of another) -> p-value of no difference; NaN where there is no test: the two are then
        not distinguished.
    higher
        Whether higher is better.
    alpha
        Probability of setting apart any number that is as good as the best, the best having been picked (Tukey).
    """
    v = np.asarray(values, dtype=np.float64)
    best = int(np.nanargmax(v if higher else -v))
    found = np.array([1.0 if place == best else p_value(best, place) for place in range(len(v))])
    return np.asarray(~(found < smallest(len(v), alpha)))


@lru_cache(maxsize=256)
def smallest(count: int, alpha: float = ALPHA) -> float:
    """Return the p-value of one comparison below which a number is set apart from the best of ``count`` numbers.

    That of the studentised range: the best and the worst of equally good numbers differ as much in ``alpha`` of draws.
    """
    if count < 2:
        return alpha
    return float(2 * norm.sf(studentized_range.ppf(1 - alpha, count, np.inf) / np.sqrt(2)))
