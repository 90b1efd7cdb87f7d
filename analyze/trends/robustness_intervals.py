"""How sure an effective robustness is: the errors of both accuracies and of the baseline's line together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.trends.fits import Line, PiecewiseLine
from analyze.trends.medians import Median

Floats = NDArray[np.float64]

DESCRIBED = "mover at least 95 %: both accuracies and the line"
NO_INTERVAL = "none: an accuracy, or the line, has no interval"


class Ends(NamedTuple):
    """Values with the ends of their intervals, (n,) each; NaN where there is none."""

    value: Floats
    low: Floats
    high: Floats


def robustness_ends(x: Ends, y: Ends, line: Line | PiecewiseLine) -> tuple[Floats, Floats]:
    """Return the ends of ``y - line(x)`` for each model, (n,) each; NaN where a part has no interval.

    Three errors are independent: that of the accuracy under shift, that of the standard accuracy, carried to the other
    axis by the line, and that of the line, whose error over families of the baseline's models holds their scatter about
    it. The distances of their ends from the value are added as squares.

    Parameters
    ----------
    x, y
        Standard and shifted accuracies with their intervals.
    line
        The baseline's fit, with intervals.

    References
    ----------
    Zou and Donner, Construction of confidence limits about effect measures: a general approach, Statistics in Medicine
    27, 2008.
    """
    expected = line.predict(x.value)
    band_low, band_high = line.band(x.value)
    at_low, at_high = line.predict(x.low), line.predict(x.high)
    # A line may fall: the ends of x then change places.
    moved_down = expected - np.minimum(at_low, at_high)
    moved_up = np.maximum(at_low, at_high) - expected
    value = y.value - expected
    low = value - np.sqrt((y.value - y.low) ** 2 + moved_up**2 + (band_high - expected) ** 2)
    high = value + np.sqrt((y.high - y.value) ** 2 + moved_down**2 + (expected - band_low) ** 2)
    return low, high


def median_ends(middle: Median, x: Floats, line: Line | PiecewiseLine) -> tuple[float, float]:
    """Return the ends of a group's median effective robustness: the models drawn, and the line, vary.

    Parameters
    ----------
    middle
        The median of the group's values, with its interval over families.
    x
        (n_models,) standard accuracies of the group; the line's error is taken at their median.
    line
        The baseline's fit, with intervals.
    """
    at = float(np.median(x))
    expected, (band_low, band_high) = line.predict([at])[0], (end[0] for end in line.band([at]))
    low = middle.value - float(np.hypot(middle.value - middle.low, band_high - expected))
    high = middle.value + float(np.hypot(middle.high - middle.value, expected - band_low))
    return low, high
