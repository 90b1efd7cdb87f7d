"""Intervals of the ECE: offered where the error is larger than its own bias, refused with the reason elsewhere."""

from __future__ import annotations

import math

from analyze.intervals.ranking import Binning, Ranking
from analyze.metrics._checks import fraction
from analyze.metrics.calibration_tests import error_bias
from analyze.metrics.proportions import Interval
from closerlook_common.errors import UserError

LEAST_RATIO = 4.0
"""Standard errors that the debiased ECE must be from 0 to have an interval."""
MOST_BIAS = 1.0
"""Standard errors that its bias may be at most."""


def ece_interval(ranking: Ranking, *, n_bins: int = 15, binning: str = "width", level: float = 0.95) -> Interval:
    """Return an interval of the L1 ECE by the delta method, about the debiased error.

    Where every bin's gap is clear of its noise the ECE is a mean of signed gaps and normal. Near calibration it is not:
    the size of a gap cannot be negative, its bias is as large as its error, and a bootstrap, reflected or not, covers
    half of the time. There is then no interval; the p-value and the ECE of a calibrated model (``ece_p``,
    ``ece_if_calibrated``) say what can be stated.

    Parameters
    ----------
    ranking
        Confidences and right or wrong, sorted.
    n_bins, binning
        As for `expected_calibration_error`.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        The debiased error is less than `LEAST_RATIO` standard errors from 0, or the bias is more than `MOST_BIAS` of
        them.
    """
    from scipy.special import ndtri

    level = fraction("level", level, open_ends=True)
    n = len(ranking)
    if n < 2:
        raise UserError("no interval: one row")
    sums = ranking.sums(Binning(n_bins, binning))
    value = ranking.expected_calibration_error(n_bins=n_bins, binning=binning)
    squares = float((ranking.gaps**2).sum())
    error = math.sqrt(max(squares / n - value**2, 0.0) / (n - 1))
    bias = error_bias(sums)
    if not (error > 0 and value - bias >= LEAST_RATIO * error and bias <= MOST_BIAS * error):
        raise UserError(
            "no interval: the error is too near to that of a calibrated model; see ece_p, ece_if_calibrated"
        )
    reach = float(ndtri(0.5 + level / 2)) * error
    middle = value - bias
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach), level, "delta-debiased")
