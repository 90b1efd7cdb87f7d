"""The interval of a mean over images: Student's, with the skewness of the column taken out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.paired import without_skewness
from analyze.metrics._checks import fraction
from analyze.metrics.proportions import Interval
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

LEAST_ROWS = 40
"""Rows of a bounded column (Brier score, confidence less correctness) below which its mean has no interval."""
LEAST_UNBOUNDED_ROWS = 200
"""The same of a column without a bound (log-likelihoods), whose mean a few rows may decide."""


def mean_interval(values: NDArray[np.float64], *, bounded: bool, level: float = 0.95) -> Interval:
    """Return the interval of the mean of a column, (n,).

    Parameters
    ----------
    values
        One finite number an image.
    bounded
        Whether the metric bounds each of them.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        Fewer than `LEAST_ROWS` rows (`LEAST_UNBOUNDED_ROWS` of an unbounded column), or a value that is not finite.

    References
    ----------
    Hall, On the removal of skewness by transformation, Journal of the Royal Statistical Society B 54, 1992.
    """
    level = fraction("level", level, open_ends=True)
    least = LEAST_ROWS if bounded else LEAST_UNBOUNDED_ROWS
    if values.size < least:
        raise UserError(f"no interval: {counted(values.size, 'row')}, at least {least} are needed")
    mean = float(values.mean(dtype=np.float64))
    if not math.isfinite(mean):
        raise UserError("no interval: a row is infinite")
    if np.ptp(values) == 0:
        raise UserError("no interval: all rows are equal")
    low, high, _ = without_skewness(values.astype(np.float64, copy=False), level)
    return Interval(low, high, level, "hall")


def clustered_standard_error(values: NDArray[np.float64], clusters: NDArray[np.int64] | None) -> float:
    """Return the standard error of the mean of a column whose rows come in clusters, such as frames of a clip.

    The sandwich estimator with its G / (G - 1) correction, and never less than that of independent rows; infinite where
    all rows are of one cluster.

    Parameters
    ----------
    values
        (n,) one finite number an image.
    clusters
        (n,) the cluster of each row, from 0 on; None where rows are independent.

    References
    ----------
    Liang and Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73, 1986.
    """
    independent = float(values.std(dtype=np.float64)) / math.sqrt(values.size)
    if clusters is None:
        return independent
    _, group = np.unique(clusters, return_inverse=True)
    n_clusters = int(group.max()) + 1
    if n_clusters == 1:
        return math.inf
    sums = np.bincount(group, weights=values.astype(np.float64) - values.mean(dtype=np.float64))
    spread = math.sqrt(float((sums**2).sum()) * n_clusters / (n_clusters - 1)) / values.size
    return max(independent, spread)
