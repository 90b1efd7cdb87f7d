"""smECE as relplot 1.0 computes it, grid and boundary included; written from its documented behaviour.

The rows enter a grid by linear weights; the grid is mirrored about its ends without the end nodes
themselves, smoothed by a Gaussian cut off at half the unit interval, and read off at evaluation points by
linear interpolation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_SMALLEST_WIDTH = 1e-3
_LOGIT_CLIP = 1e-3
_DENSITY_FLOOR = 1e-4


def relplot_error(confidence: Vector, surplus: Vector, kernel: str, sigma: float | None) -> float:
    """Return relplot's smECE of residuals at confidences, at its own width or a given one."""
    at = _reflected if kernel == "reflected" else _logit
    if sigma is not None:
        return at(confidence, surplus, sigma)
    # Halve ten times between 0 and 1; the upper end stays a width that is at least its own error.
    width, low = 1.0, 0.0
    if at(confidence, surplus, 1.0) <= 1.0:
        for _ in range(10):
            middle = (width + low) / 2
            if middle < _SMALLEST_WIDTH or middle < at(confidence, surplus, middle):
                low = middle
            else:
                width = middle
    return at(confidence, surplus, width)


def _grid(place: Vector, mass: Vector, size: int) -> Vector:
    scaled = place * (size - 1)
    cell = np.clip(scaled.astype(np.int64), 0, size - 2)
    share = scaled - cell
    values: Vector = np.bincount(cell, weights=(1 - share) * mass, minlength=size).astype(np.float64)
    values += np.bincount(cell + 1, weights=share * mass, minlength=size)
    return values


def _read_off(values: Vector, points: Vector) -> Vector:
    cells = values.size - 1
    cell = np.clip((points * cells).astype(np.int64), 0, cells - 1)
    share = points * cells - cell
    read: Vector = values[cell] * (1 - share) + values[cell + 1] * share
    return read


def _smooth(place: Vector, mass: Vector, points: Vector, sigma: float, *, mirrored: bool) -> Vector:
    from scipy.signal import fftconvolve

    size = max(2000, round(20 / sigma)) // 2 + 1
    axis = np.linspace(0, 1, size) - 0.5
    bell = np.exp(-(axis**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    values = _grid(place, mass, size)
    if mirrored:
        unfolded = np.concatenate([values[:0:-1], values, values[-2::-1]])
        smoothed = fftconvolve(unfolded, bell, "valid")[size // 2 : size // 2 + size]
    else:
        smoothed = fftconvolve(values, bell, "same")
    return _read_off(smoothed, points)


def _points(sigma: float) -> Vector:
    return np.linspace(0, 1, max(round(10 / sigma), 200))


def _reflected(confidence: Vector, surplus: Vector, sigma: float) -> float:
    points = _points(sigma)
    size = np.abs(_smooth(confidence, surplus, points, sigma, mirrored=True))
    density = _smooth(confidence, np.ones_like(surplus), points, sigma, mirrored=True) + _DENSITY_FLOOR
    return float(size.sum() / density.sum())


def _logit(confidence: Vector, surplus: Vector, sigma: float) -> float:
    points = _points(sigma)
    inner = points[1:-1]
    ends = np.log(inner / (1 - inner))
    clipped = np.clip(confidence, _LOGIT_CLIP, 1 - _LOGIT_CLIP)
    place = np.log(clipped / (1 - clipped))
    low, high = min(place.min(), ends.min()), max(place.max(), ends.max())
    place, ends = (place - low) / (high - low), (ends - low) / (high - low)
    width = sigma * 4 / (high - low)
    sums = _smooth(place, surplus, ends, width, mirrored=False)
    density = _smooth(place, np.ones_like(surplus), ends, width, mirrored=False) + _DENSITY_FLOOR
    # From the logit axis back to probabilities; the scale of the density cancels in the ratio below.
    mean = np.abs(sums / density)
    density = density / (inner * (1 - inner))
    mean = np.concatenate([mean[:1], mean, mean[-1:]])
    density = np.concatenate([density[:1], density, density[-1:]])
    return float((mean * density).sum() / density.sum())
