"""The interval of a median: two order statistics, without a word about the distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyze.metrics._checks import fraction
from analyze.metrics.proportions import Interval
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


def median_interval(values: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Return the interval of the median of a column, (n,): the inverted sign test.

    Parameters
    ----------
    values
        One finite number a query or image. Equal values make the interval cover more often than promised.
    level
        Nominal coverage; that of the order statistics is at least as high.

    Raises
    ------
    UserError
        Too few rows for any pair of order statistics (fewer than 6 for 95 %), or a value that is not finite.

    References
    ----------
    Thompson, On confidence ranges for the median and other expectation distributions, Annals of Mathematical
    Statistics 7, 1936.
    """
    from scipy.stats import binom

    level = fraction("level", level, open_ends=True)
    ordered = np.sort(values)
    if not np.isfinite(ordered).all():
        raise UserError("no interval: a row is infinite")
    n = ordered.size
    # P(fewer than k of n rows are below the median) is at most half of what may be missed on either side.
    k = int(binom.ppf((1 - level) / 2, n, 0.5))
    if binom.cdf(k, n, 0.5) > (1 - level) / 2:
        k -= 1
    if k < 0:
        raise UserError(f"no interval: {counted(n, 'row')}, too few for a median")
    return Interval(float(ordered[k]), float(ordered[n - 1 - k]), level, "order statistics", at_least=True)
