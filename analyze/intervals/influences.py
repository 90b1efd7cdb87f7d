"""What each image adds to a detection number: intervals of means over OOD sets, tests of two scores on the same images.

A detection number is a smooth function of two samples. Each of its rows has an influence on it (for AUROC DeLong's
placement, for FPR@95 the row's side of the threshold and its pull on the threshold). Numbers that share rows differ by
the differences of these influences, and a mean of numbers has their mean: so one variance serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.detection_intervals import check_rows
from analyze.intervals.detection_pairs import SortedScores, needed
from analyze.intervals.paired import PairedDifference
from analyze.kernels.influences import placements, precision_parts
from analyze.metrics._checks import fraction
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

Floats = NDArray[np.float64]

REACH = 1.96
"""Standard errors of the recall on either side of the threshold between which the ROC curve's slope is taken."""
LEAST_BESIDE = 10
"""Rows of either side on each side of the threshold below which rates at it are not tested."""


class Influence(NamedTuple):
    """A detection number and what each row adds to it.

    Attributes
    ----------
    value
        The number.
    inside, outside
        (n,) and (m,) influences of the ID and of the OOD rows, each with mean 0, in the order of the rows.
    """

    value: float
    inside: Floats
    outside: Floats


def auroc_influence(inside: SortedScores, outside: SortedScores) -> Influence:
    """Return AUROC with DeLong's placements.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 44, 1988.
    """
    low, high = inside.values, outside.values
    of_inside, of_outside = np.empty(low.size), np.empty(high.size)
    placements(low, high, of_inside, of_outside)
    return in_rows(float(of_inside.mean()), inside, of_inside, outside, of_outside)


def fpr_influence(inside: SortedScores, outside: SortedScores, *, positive: str = "id", tpr: float = 0.95) -> Influence:
    """Return the FPR at a TPR with the influence of each row.

    A negative row counts by its side of the threshold. A positive row moves the threshold along the ROC curve, whose
    slope is that of the chord within `REACH` standard errors of the recall.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    positive
        ``id``: FPR is the share of OOD rows above the threshold. ``ood``: of ID rows below it.
    tpr
        Recall at which the FPR is taken.

    References
    ----------
    Hsieh and Turnbull, Nonparametric and semiparametric estimation of the receiver operating characteristic curve,
    Annals of Statistics 24, 1996.
    """
    low, high = inside.values, outside.values
    if positive == "ood":
        low, high = -high[::-1], -low[::-1]
    n, m = low.size, high.size
    hits = needed(n, tpr)

    def alarms(count: int) -> int:
        return m - int(np.searchsorted(high, low[n - count], side="left"))

    found = alarms(hits)
    step = max(round(REACH * math.sqrt(n * tpr * (1 - tpr))), 1)
    less, more = max(hits - step, 1), min(hits + step, n)
    slope = (alarms(more) - alarms(less)) / m / ((more - less) / n)
    threshold = low[n - hits]
    of_positive = -slope * (low >= threshold).astype(np.float64)
    of_negative = (high >= threshold).astype(np.float64)
    if positive == "ood":
        return in_rows(found / m, inside, of_negative[::-1], outside, of_positive[::-1])
    return in_rows(found / m, inside, of_positive, outside, of_negative)


def aupr_influence(inside: SortedScores, outside: SortedScores, *, positive: str = "id") -> Influence:
    """Return the average precision with the influence of each row; the sizes of the sets are given.

    Parameters and source as for ``aupr_interval``.
    """
    low, high = inside.values, outside.values
    if positive == "ood":
        low, high = np.ascontiguousarray(-high[::-1]), np.ascontiguousarray(-low[::-1])
    of_positive, of_negative = np.empty(low.size), np.empty(high.size)
    value = float(precision_parts(low, high, of_positive, of_negative))
    if positive == "ood":
        return in_rows(value, inside, of_negative[::-1], outside, of_positive[::-1])
    return in_rows(value, inside, of_positive, outside, of_negative)


def in_rows(value: float, inside: SortedScores, of_in: Floats, outside: SortedScores, of_out: Floats) -> Influence:
    """Put influences of sorted rows in the order of the rows, each side less its mean."""
    found = []
    for side, influence in ((inside, of_in), (outside, of_out)):
        rows = np.empty(influence.size)
        rows[side.rows] = influence
        rows -= rows.mean()
        found.append(rows)
    return Influence(value, *found)


_MAKERS: Mapping[str, Callable[[SortedScores, SortedScores], Influence]] = {
    "auroc": auroc_influence,
    "fpr95_id": fpr_influence,
    "fpr95_ood": lambda a, b: fpr_influence(a, b, positive="ood"),
    "aupr_in": aupr_influence,
    "aupr_out": lambda a, b: aupr_influence(a, b, positive="ood"),
}
COMPARED = tuple(_MAKERS)
"""Detection numbers whose influences are known."""


def detection_influence(metric: str, inside: SortedScores, outside: SortedScores) -> Influence:
    """Return a detection number, by its name in the result table, with the influence of each row."""
    return _MAKERS[metric](inside, outside)


def check_comparable(metric: str, inside: SortedScores, outside: SortedScores, *, tpr: float = 0.95) -> None:
    """Refuse sets that are too small or too far apart for a test of a detection number against another.

    Raises
    ------
    UserError
        As ``auroc_interval`` does; for a rate at a threshold, fewer than `LEAST_BESIDE` rows of a side above or below.
    """
    low, high = inside.values, outside.values
    check_rows(low, high)
    if not metric.startswith("fpr95"):
        return
    if metric == "fpr95_ood":
        low, high = -high[::-1], -low[::-1]
    hits = needed(low.size, tpr)
    alarms = high.size - int(np.searchsorted(high, low[low.size - hits], side="left"))
    fewest = min(alarms, high.size - alarms, hits, low.size - hits)
    if fewest < LEAST_BESIDE:
        raise UserError(f"no test: only {counted(fewest, 'row')} on one side of the threshold")


def paired_detection(first: Influence, second: Influence, *, level: float = 0.95) -> PairedDifference:
    """Return the difference of a detection number between two scores on the same images, with interval and p-value.

    The null hypothesis: both numbers are equal in the population. The variance is that of the differences of
    influences (for AUROC, DeLong's test), with Student's quantile at Satterthwaite's degrees of freedom.

    Parameters
    ----------
    first, second
        Of the same metric, on the same ID and OOD rows in the same order.
    level
        Nominal coverage.

    Returns
    -------
    PairedDifference
        ``first`` less ``second``; ``method`` is ``paired influences``, or ``equal`` where no row differs.

    Raises
    ------
    UserError
        Where the rows are not as many.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988.
    """
    from scipy.special import stdtr, stdtrit

    fraction("level", level, open_ends=True)
    sizes = (first.inside.size, first.outside.size)
    if sizes != (second.inside.size, second.outside.size):
        raise UserError("two scores are compared on the same images; these are of different numbers of images")
    gap = first.value - second.value
    variance, freedom = summed([variance_of(a - b) for a, b in zip(first[1:], second[1:], strict=True)])
    if variance <= 0.0:
        return PairedDifference(gap, gap, gap, 1.0 if gap == 0 else 0.0, level, sum(sizes), "equal")
    error = math.sqrt(variance)
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(gap) / error))
    low, high = max(-1.0, gap - reach), min(1.0, gap + reach)
    return PairedDifference(gap, low, high, p_value, level, sum(sizes), "paired influences")


def variance_of(influence: Floats) -> tuple[float, float]:
    """Return the variance of a mean of influences, and that variance's own."""
    n = influence.size
    squares = influence**2
    spread = float(squares.mean())
    peak = max(float((squares**2).mean()), spread**2)
    return spread / (n - 1), (peak - spread**2) / n / (n - 1) ** 2


def variance_of_mean(influence: Floats) -> float:
    """Return the first of `variance_of` alone."""
    return float((influence**2).mean()) / (influence.size - 1)


def summed(spreads: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the variance of a sum over independent samples, and Satterthwaite's degrees of freedom."""
    total, unsure = (sum(parts) for parts in zip(*spreads, strict=True))
    freedom = 2 * total**2 / unsure if unsure > 0 else math.inf
    return total, min(max(freedom, 1.0), 1e9)
