"""Axes on which accuracies lie on lines: linear, logit and probit, there and back."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri

from closerlook_common.errors import UserError, nearest

Scale = Literal["linear", "logit", "probit", "log"]
SCALES: tuple[str, ...] = get_args(Scale)
CLIP = 1e-4
"""Proportions are kept this far from 0 and 1 before a logit or probit, where they would be infinite."""

Floats = NDArray[np.float64]


def check_scale(scale: str) -> Scale:
    """Return the scale, or raise a ``UserError`` that names those that exist."""
    if scale not in SCALES:
        raise UserError(f"no axis scale {scale!r}{nearest(scale, SCALES, list_all=True)}")
    return scale  # type: ignore[return-value]


def transform(values: ArrayLike, scale: str, *, clip: float = CLIP) -> Floats:
    """Put values on an axis.

    Parameters
    ----------
    values
        Proportions in [0, 1] for ``logit`` and ``probit``, positive numbers for ``log`` (base 10), anything
        for ``linear``.
    scale
        One of ``SCALES``; probit is the inverse of the normal distribution function.
    clip
        Distance from 0 and 1 to which proportions are clipped.

    Returns
    -------
    ndarray of float64
        NaN stays NaN.

    Raises
    ------
    UserError
        Where a value lies outside the axis's domain.
    """
    array = np.asarray(values, dtype=np.float64)
    check_scale(scale)
    if scale == "linear":
        return array
    if scale == "log":
        if np.any(array <= 0):
            raise UserError(f"a log axis needs positive values, got {np.nanmin(array):g}")
        return np.log10(array)
    if np.any((array < 0) | (array > 1)):
        outside = array[(array < 0) | (array > 1)][0]
        raise UserError(f"a {scale} axis needs proportions between 0 and 1, got {outside:g}; use scale 'linear'")
    clipped = np.clip(array, clip, 1 - clip)
    return np.asarray(logit(clipped) if scale == "logit" else ndtri(clipped), dtype=np.float64)


def untransform(positions: ArrayLike, scale: str) -> Floats:
    """Return the values at positions of an axis: the inverse of ``transform``."""
    array = np.asarray(positions, dtype=np.float64)
    check_scale(scale)
    if scale == "linear":
        return array
    if scale == "log":
        return np.asarray(10.0**array)
    return np.asarray(expit(array) if scale == "logit" else ndtr(array), dtype=np.float64)
