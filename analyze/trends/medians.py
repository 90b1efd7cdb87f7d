"""Medians over models that come in families, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analyze.trends.dependence import described, quantile
from analyze.trends.families import Families, effective_models
from closerlook_common.console.terminal import counted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Median:
    """A median over models.

    Attributes
    ----------
    value, low, high
        The median and its interval; NaN where there is none, as ``interval`` says.
    n, families, n_effective
        Models, families that they come in, and independent models that they are worth.
    interval
        How the interval was made, or why there is none.
    """

    value: float
    low: float
    high: float
    n: int
    families: int
    n_effective: float
    interval: str


def median(values: ArrayLike, families: ArrayLike | Families | None = None, *, level: float = 0.95) -> Median:
    """Return the median of one number a model, with an interval of the median of the models that could have been had.

    The share of models below the median has an error that allows for families; what a binomial of as many independent
    models says of that share is carried over to the values (Woodruff's interval, with the ends of Korn and Graubard).

    Parameters
    ----------
    values
        (n_models,) finite numbers.
    families
        (n_models,) a label each; None takes all models as independent.
    level
        Nominal coverage.

    References
    ----------
    Woodruff, Confidence intervals for medians and other position measures, JASA 47, 1952. Korn and Graubard, Confidence
    intervals for proportions with small expected number of positive counts, Survey Methodology 24, 1998.
    """
    v = np.asarray(values, dtype=np.float64)
    groups = Families.independent(len(v)) if families is None else families
    groups = groups if isinstance(groups, Families) else Families.of(groups)
    if not len(v):
        return Median(math.nan, math.nan, math.nan, 0, 0, 0.0, "none: no model")
    middle = float(np.median(v))
    worth = effective_models(groups, v)
    low, high, how = math.nan, math.nan, described(groups, level, "woodruff")
    reach = quantile(groups, level=level)
    if math.isfinite(reach):
        share_low = _lower_share(v, middle, groups, reach, level)
        if share_low * len(v) < 0.5:
            how = f"none: {counted(len(v), 'model')}, too few for the interval of a median"
        else:
            places = np.arange(len(v)) + 0.5
            low, high = (
                float(e) for e in np.interp([share_low * len(v), (1 - share_low) * len(v)], places, np.sort(v))
            )
    return Median(middle, low, high, len(v), groups.count, worth, how)


def _lower_share(v: Floats, middle: float, groups: Families, reach: float, level: float) -> float:
    """Return the lower end of the share of models below the median, which is a half."""
    n = len(v)
    below = np.where(v < middle, 1.0, np.where(v == middle, 0.5, 0.0))
    # A large family pulls the median towards itself: its part of the error is what it would be without that.
    parts = groups.sums(below - below.mean()) / (1 - groups.sizes / n)
    variance = (groups.count - 1) / groups.count * float((parts**2).sum()) / n**2
    ordinary = float(stats.norm.ppf(0.5 + level / 2))
    worth = min(n, 0.25 / max(variance, 0.25 / n**2) * (ordinary / reach) ** 2)
    return float(stats.beta.ppf((1 - level) / 2, worth / 2, worth / 2 + 1))
