"""Intervals of areas under risk-coverage curves and of the AUROC of correctness, without a bootstrap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.detection_intervals import auroc_interval
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.ranking import Ranking
from analyze.metrics._checks import fraction
from analyze.metrics.proportions import Interval
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

LEAST_ERRORS = 20
"""Wrong rows, and right rows, below which these areas have no interval."""
WINDOW = 0.1
"""Share of the rows about a threshold from which the error rate at it is taken."""


def area_interval(ranking: Ranking, name: str, *, level: float = 0.95) -> Interval:
    """Return an interval of ``aurc``, ``e_aurc``, ``augrc``, ``e_augrc`` or ``correctness_auroc``.

    The areas are functions of the joint distribution of confidence and error: their variance is that of the rows'
    influence values (the infinitesimal jackknife), on the log scale, but for those less the area of a perfect ranking,
    which may be 0. The AUROC has DeLong's.

    Parameters
    ----------
    ranking
        Confidences and right or wrong, sorted.
    name
        Of the area.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        Fewer than `LEAST_ERRORS` wrong or right rows; for ``correctness_auroc`` also as for `auroc_interval`.

    References
    ----------
    Efron, Nonparametric estimates of standard error: the jackknife, the bootstrap and other methods, Biometrika 68,
    1981.
    """
    from scipy.special import stdtrit

    level = fraction("level", level, open_ends=True)
    wrong = ~ranking.right
    rarest = min(int(wrong.sum()), int(ranking.right.sum()))
    if rarest < LEAST_ERRORS:
        raise UserError(f"no interval: only {counted(rarest, 'row')} {'wrong' if wrong.mean() < 0.5 else 'right'}")
    if name == "correctness_auroc":
        return auroc_interval(_scores(ranking.values[ranking.right]), _scores(ranking.values[wrong]), level=level)
    influence = _influence(ranking, name)
    n = influence.size
    influence -= influence.mean()
    squares = influence * influence
    spread = float(squares.mean())
    variance = spread / (n - 1)
    excess = float((squares * squares).mean()) / spread**2
    reach = float(stdtrit(max(2 * n / max(excess - 1, 1e-9), 1.0), 0.5 + level / 2)) * math.sqrt(variance)
    value = float(getattr(ranking, name)())
    if name in ("e_aurc", "e_augrc") or value <= 0:
        return Interval(value - reach, value + reach, level, "jackknife")
    return Interval(value * math.exp(-reach / value), value * math.exp(reach / value), level, "jackknife-log")


def _scores(values: NDArray[Any]) -> SortedScores:
    return SortedScores(values, np.arange(values.size, dtype=np.int32))


def _influence(ranking: Ranking, name: str) -> NDArray[np.float64]:
    """Return what each row, from the least confident, adds to the area at the margin."""
    n = len(ranking)
    wrong = (~ranking.right).astype(np.float64)
    firsts = ranking.starts[:-1]
    groups = np.diff(ranking.starts)
    group_of = np.repeat(np.arange(groups.size), groups)
    answered = (n - firsts).astype(np.float64)  # rows at or above each distinct confidence
    errors = np.add.accumulate(wrong[::-1])[::-1][firsts]
    below = np.cumsum(groups / n)  # weight of the thresholds at or below a row's own
    rate = float(wrong.mean())
    if name in ("augrc", "e_augrc"):
        found: NDArray[np.float64] = errors[group_of] / n + wrong * below[group_of]
        return found if name == "augrc" else found - rate * wrong
    by_error = np.cumsum(groups / answered)
    by_row = np.cumsum(groups * errors / answered**2)
    found = (errors / answered)[group_of] + wrong * by_error[group_of] - by_row[group_of]
    if name == "aurc":
        return found
    return found + math.log1p(-rate) * wrong


def risk_interval(ranking: Ranking, *, coverage: float, level: float = 0.95) -> Interval:
    """Return an interval of the risk at a coverage: on the logit scale, the threshold's own scatter included.

    Rows enter and leave the answered ones at the threshold, where the error rate is not the mean one: it is taken from
    the `WINDOW` share of the rows about the threshold.

    Raises
    ------
    UserError
        Fewer than `LEAST_ERRORS` wrong or right rows among the answered.
    """
    from scipy.special import ndtri

    level = fraction("level", level, open_ends=True)
    coverage = fraction("coverage", coverage, open_ends=True)
    n = len(ranking)
    answered = math.ceil(coverage * n - 1e-9)
    top = ~ranking.right[n - answered :]
    rarest = min(int(top.sum()), int((~top).sum()))
    if rarest < LEAST_ERRORS:
        raise UserError(f"no interval: {rarest} answered rows are {'wrong' if top.mean() < 0.5 else 'right'}")
    reach = max(round(WINDOW * n / 2), LEAST_ERRORS)
    edge = float((~ranking.right[max(n - answered - reach, 0) : n - answered + reach]).mean())
    risk = ranking.risk_at_coverage(coverage=coverage)
    share = answered / n
    moved = (top - edge) / share
    squares = float((moved**2).sum()) / n - (float(moved.sum()) / n) ** 2
    error = math.sqrt(squares / n) / (risk * (1 - risk))
    middle, reach_of = math.log(risk / (1 - risk)), float(ndtri(0.5 + level / 2)) * error
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - reach_of, middle + reach_of))
    return Interval(low, high, level, "jackknife-logit")


def coverage_interval(ranking: Ranking, *, risk: float, skip: int = 0, level: float = 0.95) -> Interval:
    """Return an interval of the largest coverage at a risk: where Wilson's band of the curve crosses the risk.

    Parameters
    ----------
    ranking
        Confidences and right or wrong, sorted.
    risk, skip
        As for `coverage_at_risk`.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        The band does not cross the risk on both sides: the coverage is then near 0 or 1.
    """
    from scipy.special import ndtri

    level = fraction("level", level, open_ends=True)
    answered, errors = ranking.curve
    rate = errors / answered
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    middle = (rate + z2 / (2 * answered)) / (1 + z2 / answered)
    half = np.sqrt(z2 * (rate * (1 - rate) / answered + z2 / (4 * answered**2))) / (1 + z2 / answered)
    kept = answered > skip
    low = int(answered[kept & (middle + half <= risk)].max(initial=0))
    high = int(answered[kept & (middle - half <= risk)].max(initial=0))
    if low == 0 or high == len(ranking):
        raise UserError("no interval: the risk is reached nowhere, or everywhere, within its error")
    return Interval(low / len(ranking), high / len(ranking), level, "wilson-band")
