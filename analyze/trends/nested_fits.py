"""Tests whether a fit needs all of its columns: two nested least-squares fits in, F and its p-value out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fit(NamedTuple):
    """A fit by ordinary least squares.

    Attributes
    ----------
    residual
        Sum of squared residuals.
    free
        Observations less the rank of the design.
    """

    residual: float
    free: int


def least_squares(design: NDArray[np.float64], values: NDArray[np.float64]) -> Fit:
    """Fit values by columns.

    Parameters
    ----------
    design
        (n, k), one row an observation; a constant is one of its columns.
    values
        (n,).
    """
    coefficients, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    return Fit(float(((values - design @ coefficients) ** 2).sum()), len(values) - int(rank))


def f_test(full: Fit, restricted: Fit) -> tuple[float, float]:
    """Test whether leaving columns out of a fit costs nothing.

    Parameters
    ----------
    full, restricted
        Fits of the same values; the columns of the second are among those of the first.

    Returns
    -------
    tuple
        F, from 0 up (infinite where the full fit is exact), and the p-value of no cost, 0 to 1.
    """
    from scipy.stats import f as distribution

    dropped = restricted.free - full.free
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide((restricted.residual - full.residual) / dropped, np.float64(full.residual) / full.free))
    return ratio, float(distribution.sf(ratio, dropped, full.free))
