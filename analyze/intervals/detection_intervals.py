"""Intervals of AUROC, FPR at 95 % TPR and AUPR without a bootstrap: two sorted columns of scores in."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.detection_pairs import SortedScores, needed
from analyze.kernels.variances import POWERS, auroc_walk, precision_walk
from analyze.metrics._checks import fraction
from analyze.metrics.proportions import Interval, wilson_interval
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

LEAST_ROWS = 100
LEAST_OVERLAP = 20
"""Rows of either side, and rows of either side among the scores of the other, below which no interval is offered: its
measured coverage leaves 93 to 97 % (``benchmarks/coverage.py``)."""


def check_rows(low: NDArray[np.floating[Any]], high: NDArray[np.floating[Any]]) -> None:
    """Raise UserError where two rising columns of ID and OOD scores are too small or too far apart for an interval."""
    fewest = min(low.size, high.size)
    if fewest < LEAST_ROWS:
        raise UserError(f"no interval: {counted(fewest, 'row')} on one side, at least {LEAST_ROWS} are needed")
    among = min(int(np.searchsorted(low, high[-1], "right")), high.size - int(np.searchsorted(high, low[0], "left")))
    if among < LEAST_OVERLAP:
        raise UserError(
            f"no interval: the sets are almost separated, only {counted(among, 'row')} among the other set's scores"
        )


def _on_logit_scale(
    value: float, moments: NDArray[np.float64], sizes: tuple[int, int], level: float, method: str
) -> Interval:
    """Return an interval on the logit scale with Student's quantile."""
    from scipy.special import stdtrit

    level = fraction("level", level, open_ends=True)
    variance, freedom = _variance(moments, sizes)
    if variance <= 0.0 or not 0.0 < value < 1.0:
        raise UserError("no interval: the scores have no variance")
    middle = math.log(value / (1 - value))
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-max(min(end, 700.0), -700.0))) for end in (middle - reach, middle + reach))
    return Interval(low, high, level, method)


def _variance(moments: NDArray[np.float64], sizes: tuple[int, int]) -> tuple[float, float]:
    """Return the variance of a sum of two independent means, and its degrees of freedom.

    The freedom is Satterthwaite's, from the kurtosis of each side: where a few rows make nearly all of the variance, as
    near an AUROC of 1, it is small and the interval wider.
    """
    total = unsure = 0.0
    for (first, second, third, fourth), n in zip(moments, sizes, strict=True):
        mean = first / n
        spread = max(second / n - mean**2, 0.0)
        peak = max(fourth / n - 4 * mean * third / n + 6 * mean**2 * second / n - 3 * mean**4, spread**2)
        total += spread / (n - 1)
        unsure += (peak - spread**2) / n / (n - 1) ** 2
    freedom = 2 * total**2 / unsure if unsure > 0 else math.inf
    return total, min(max(freedom, 1.0), 1e9)


def auroc_variance(inside: SortedScores, outside: SortedScores) -> tuple[float, float]:
    """Return AUROC and its variance after DeLong, DeLong and Clarke-Pearson (1988).

    Parameters
    ----------
    inside, outside
        At least two scores each, higher = more in-distribution.
    """
    low, high = inside.values, outside.values
    moments = np.empty((2, POWERS))
    auroc_walk(low, high, moments)
    return float(moments[0, 0] / low.size), _variance(moments, (low.size, high.size))[0]


def auroc_interval(inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Interval:
    """Return an interval of AUROC: DeLong's variance on the logit scale.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    level
        Nominal coverage.

    Returns
    -------
    Interval
        ``method`` is ``delong-logit``.

    Raises
    ------
    UserError
        Fewer than `LEAST_ROWS` rows on one side, or fewer than `LEAST_OVERLAP` among the scores of the other.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 44, 1988. Pepe, The Statistical Evaluation of Medical Tests, 2003, section 5.2
    (logit scale).
    """
    low, high = inside.values, outside.values
    check_rows(low, high)
    moments = np.empty((2, POWERS))
    auroc_walk(low, high, moments)
    value = float(moments[0, 0] / low.size)
    return _on_logit_scale(value, moments, (low.size, high.size), level, "delong-logit")


def aupr_interval(
    inside: SortedScores, outside: SortedScores, *, positive: str = "id", level: float = 0.95
) -> Interval:
    """Return an interval of the average precision: the infinitesimal jackknife on the logit scale.

    The two sets are samples of their own: their sizes, on which the average precision depends, are given.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    positive
        ``id`` (AUPR-in) or ``ood`` (AUPR-out: low scores are taken for positive).
    level
        Nominal coverage.

    Raises
    ------
    UserError
        As for `auroc_interval`.

    References
    ----------
    Efron, Nonparametric estimates of standard error: the jackknife, the bootstrap and other methods, Biometrika 68,
    1981. Boyd, Eng and Page, Area under the precision-recall curve, ECML 2013 (logit scale).
    """
    low, high = inside.values, outside.values
    check_rows(low, high)
    if positive == "ood":
        low, high = -high[::-1], -low[::-1]
    moments = np.empty((2, POWERS))
    value = float(precision_walk(np.ascontiguousarray(low), np.ascontiguousarray(high), moments))
    return _on_logit_scale(value, moments, (low.size, high.size), level, "jackknife-logit")


def fpr_interval(
    inside: SortedScores, outside: SortedScores, *, positive: str = "id", tpr: float = 0.95, level: float = 0.95
) -> Interval:
    """Return an interval of the FPR at a TPR: that of the rate at the threshold, and that of the threshold.

    The rate's is Wilson's; the distances of both from the value are added as squares (the method of variance estimates
    recovery). The threshold's comes from the order statistics of the positives between which the true quantile lies,
    with straight lines between them.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    positive
        ``id``: FPR is the share of OOD rows above the threshold. ``ood``: of ID rows below it.
    tpr
        Recall at which the FPR is taken.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        As for `auroc_interval`.

    References
    ----------
    Wilson, JASA 22, 1927. Hutson, Calculating nonparametric confidence intervals for quantiles using fractional order
    statistics, Journal of Applied Statistics 26, 1999. Zou and Donner, Construction of confidence limits about effect
    measures: a general approach, Statistics in Medicine 27, 2008.
    """
    level = fraction("level", level, open_ends=True)
    low, high = inside.values, outside.values
    check_rows(low, high)
    if positive == "ood":
        low, high = -high[::-1], -low[::-1]
    n, m = low.size, high.size
    value = _false_share(low, high, needed(n, tpr))
    rate = wilson_interval(round(value * m), m, level=level)
    fewest, most = _order_statistics(n, tpr, level)
    below, above = _interpolated(low, high, fewest), _interpolated(low, high, most)
    return Interval(
        max(0.0, value - math.hypot(value - rate.low, value - below)),
        min(1.0, value + math.hypot(rate.high - value, above - value)),
        level,
        "wilson-mover",
        at_least=True,
    )


@functools.lru_cache(maxsize=256)
def _order_statistics(n: int, tpr: float, level: float) -> tuple[float, float]:
    """Return the fractional order statistics, counted from the top, that bracket the true quantile at ``tpr``."""
    from scipy.optimize import brentq
    from scipy.special import betainc

    def index(share: float) -> float:
        def excess(k: float) -> float:
            return float(betainc(k, n + 1 - k, tpr)) - share

        ends = (1e-6, n + 1 - 1e-6)
        if excess(ends[0]) <= 0 or excess(ends[1]) >= 0:
            return ends[0] if excess(ends[0]) <= 0 else ends[1]
        return float(brentq(excess, *ends))

    tail = (1 - level) / 2
    return index(1 - tail), index(tail)


def _interpolated(positive: NDArray[Any], negative: NDArray[Any], hits: float) -> float:
    """Return the share of negatives above a fractional order statistic of the positives."""
    hits = min(max(hits, 1.0), float(positive.size))
    whole = int(hits)
    here = _false_share(positive, negative, whole)
    return here + (hits - whole) * (_false_share(positive, negative, whole + 1) - here)


def _false_share(positive: NDArray[Any], negative: NDArray[Any], hits: int) -> float:
    """Return the share of negatives at or above the score of the ``hits``-th highest positive."""
    threshold = positive[positive.size - min(hits, positive.size)]
    return (negative.size - int(np.searchsorted(negative, threshold, side="left"))) / negative.size


_MAKERS: Mapping[str, Callable[..., Interval]] = {
    "auroc": auroc_interval,
    "fpr95_id": functools.partial(fpr_interval, positive="id"),
    "fpr95_ood": functools.partial(fpr_interval, positive="ood"),
    "aupr_in": functools.partial(aupr_interval, positive="id"),
    "aupr_out": functools.partial(aupr_interval, positive="ood"),
}


def detection_interval(metric: str, inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Interval:
    """Return the interval of a detection number by its name in the result table; errors as of `auroc_interval`."""
    return _MAKERS[metric](inside, outside, level=level)
