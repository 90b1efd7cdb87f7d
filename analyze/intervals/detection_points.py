"""Intervals of the equal error rate and of the partial AUROC: two sorted columns of scores in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.intervals.detection_intervals import check_rows
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.influences import Influence, in_rows, summed, variance_of
from analyze.intervals.set_means import Bounded, Part
from analyze.metrics._checks import fraction
from analyze.metrics.proportions import Interval
from closerlook_common.errors import UserError

REACH = 1.96
"""Standard errors on either side of the crossing between which the slope of the ROC curve is taken."""
LEAST_IN_TAIL = 50
"""OOD rows within the largest false-positive rate below which the partial AUROC has no interval."""


class _Crossing(NamedTuple):
    """Where the share of rejected ID rows and that of accepted OOD rows meet.

    Attributes
    ----------
    value, threshold
        The equal error rate, and a score at which both rates are nearest to it.
    share
        Of the OOD side among both densities at the threshold: the weight of the ID rows' error.
    """

    value: float
    threshold: float
    share: float


def _crossing(low: NDArray[np.floating], high: NDArray[np.floating]) -> _Crossing:
    """Return the crossing of two rising columns; the densities are those of the rows within `REACH` errors of it."""
    n, m = low.size, high.size
    value = metrics.equal_error_rate(low, high)
    cuts = np.unique(np.concatenate([low, high]))
    rejected = np.searchsorted(low, cuts, side="left") / n
    accepted = 1 - np.searchsorted(high, cuts, side="left") / m
    surplus = rejected - accepted  # from -1, never falling
    reach = REACH * math.sqrt(max(value * (1 - value), 1 / (n * m)) * (1 / n + 1 / m))
    first = max(int(np.searchsorted(surplus, -reach)) - 1, 0)
    last = min(int(np.searchsorted(surplus, reach)), cuts.size - 1)
    of_inside, of_outside = rejected[last] - rejected[first], accepted[first] - accepted[last]
    middle = min(int(np.searchsorted(surplus, 0.0)), cuts.size - 1)
    return _Crossing(value, float(cuts[middle]), float(of_outside / (of_inside + of_outside)))


def eer_interval(inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Interval:
    """Return an interval of the equal error rate: Wilson's, for as many rows as both sides are worth together.

    At the threshold both error rates equal e. To first order the equal error rate is their mean, weighted by the other
    side's density there, so that its variance is e (1 - e) (w^2 / n + (1 - w)^2 / m): that of a share of so many rows.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    level
        Nominal coverage.

    Returns
    -------
    Interval
        ``method`` is ``wilson-eer``.

    Raises
    ------
    UserError
        As for ``auroc_interval``.

    References
    ----------
    Wilson, JASA 22, 1927. Hsieh and Turnbull, Nonparametric and semiparametric estimation of the receiver operating
    characteristic curve, Annals of Statistics 24, 1996.
    """
    from scipy.special import ndtri

    level = fraction("level", level, open_ends=True)
    low, high = inside.values, outside.values
    check_rows(low, high)
    value, _, share = _crossing(low, high)
    rows = 1 / (share**2 / low.size + (1 - share) ** 2 / high.size)
    z = float(ndtri(0.5 + level / 2))
    middle = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
    reach = z / (1 + z**2 / rows) * math.sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2))
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach), level, "wilson-eer")


def eer_influence(inside: SortedScores, outside: SortedScores) -> Influence:
    """Return the equal error rate with the influence of each row; see `eer_interval`."""
    low, high = inside.values, outside.values
    value, threshold, share = _crossing(low, high)
    rejected = share * (low < threshold).astype(np.float64)
    accepted = (1 - share) * (high >= threshold).astype(np.float64)
    return in_rows(value, inside, rejected, outside, accepted)


def partial_auroc_influence(inside: SortedScores, outside: SortedScores, *, max_fpr: float = 0.1) -> Influence:
    """Return the standardised area up to a false-positive rate with the influence of each row.

    An ID row counts by the OOD rows between the threshold and itself, an OOD row above the threshold by the share of ID
    rows above it less that at the threshold, which such a row moves.
    """
    low, high = inside.values, outside.values
    n, m = low.size, high.size
    tail = min(max(math.floor(max_fpr * m + 1e-9), 1), m)
    first = m - tail
    below = np.searchsorted(low, high[first:], side="left")
    upto = np.searchsorted(low, high[first:], side="right")
    above = 1 - (below + upto) / (2 * n)
    of_outside = np.zeros(m)
    of_outside[first:] = above - above[0]
    of_inside = np.maximum(np.searchsorted(high, low, side="left") - first, 0) / m
    scale = 1 / (2 * (max_fpr - max_fpr**2 / 2))  # of the area, as McClish standardises it
    value = metrics.partial_auroc(low, high, max_fpr=max_fpr)
    return in_rows(value, inside, scale * of_inside, outside, scale * of_outside)


def partial_auroc_interval(
    inside: SortedScores, outside: SortedScores, *, max_fpr: float = 0.1, level: float = 0.95
) -> Interval:
    """Return an interval of the standardised partial AUROC: the influences' variance on the logit scale of the area.

    Parameters
    ----------
    inside, outside
        Scores of the ID and of the OOD rows, sorted.
    max_fpr
        Largest false-positive rate.
    level
        Nominal coverage.

    Returns
    -------
    Interval
        ``method`` is ``influences-logit``.

    Raises
    ------
    UserError
        As for ``auroc_interval``, and for fewer than `LEAST_IN_TAIL` OOD rows within the rate.

    References
    ----------
    Dodd and Pepe, Partial AUC estimation and regression, Biometrics 59, 2003. McClish, Medical Decision Making 9, 1989.
    """
    from scipy.special import stdtrit

    level = fraction("level", level, open_ends=True)
    low, high = inside.values, outside.values
    check_rows(low, high)
    tail = math.floor(max_fpr * high.size + 1e-9)
    if tail < LEAST_IN_TAIL:
        raise UserError(
            f"no interval: {tail} OOD rows within {100 * max_fpr:g} % FPR, at least {LEAST_IN_TAIL} are needed"
        )
    found = partial_auroc_influence(inside, outside, max_fpr=max_fpr)
    least = max_fpr**2 / 2
    area = ((2 * found.value - 1) * (max_fpr - least) + least) / max_fpr  # of max_fpr, in [0, 1]
    variance, freedom = summed([variance_of(side) for side in found[1:]])
    error = math.sqrt(variance) * 2 * (max_fpr - least) / max_fpr
    if error <= 0.0 or not 0.0 < area < 1.0:
        raise UserError("no interval: the scores have no variance")
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * error / (area * (1 - area))
    middle = math.log(area / (1 - area))
    shares = [1 / (1 + math.exp(-max(min(end, 700.0), -700.0))) for end in (middle - reach, middle + reach)]
    start, end = ((1 + (share * max_fpr - least) / (max_fpr - least)) / 2 for share in shares)
    return Interval(start, end, level, "influences-logit")


_POINTS: Mapping[str, tuple[Callable[..., Interval], Callable[..., Influence]]] = {
    "eer": (eer_interval, eer_influence),
    "partial_auroc10": (partial_auroc_interval, partial_auroc_influence),
}
POINTS = tuple(_POINTS)
"""Points and parts of the ROC curve that have an interval, by their names in the result table."""


def point_interval(metric: str, inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Interval:
    """Return the interval of a point or part of the ROC curve by its name in the result table."""
    return _POINTS[metric][0](inside, outside, level=level)


def point_part(metric: str, inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Part:
    """Return what a set adds to the mean of such a number over OOD sets, or why it has no interval."""
    make, influence = _POINTS[metric]
    try:
        interval = make(inside, outside, level=level)
    except UserError as error:
        return str(error).removeprefix("no interval: ")
    return Bounded(influence(inside, outside), interval)
