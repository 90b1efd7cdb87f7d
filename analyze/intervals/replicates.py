"""The smooth calibration error on bootstrap replicates: where image i is drawn w_i times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.ranking import Vector, Weights, matching

Column = NDArray[Any]

_SMOOTH_NODES = 2048


def smooth_replicates(confidences: Column, correct: Column, weights: Weights) -> Vector:
    """Return the smooth calibration error (reflected kernel, fixed point) of each replicate, (R,).

    Rows enter a grid of 2,049 nodes by linear weights and integrals are taken at about a tenth of the width:
    good to about 0.1 % of the value, far below the interval's own width. Weights are those of
    :class:`analyze.intervals.BootstrapWeights`, (n, R) uint8 whose columns each sum to n.
    """
    from scipy.fft import dct

    from analyze.kernels.ranking import bin_totals
    from analyze.metrics.smooth_calibration import Smoother

    weights = matching(len(confidences), weights)
    n, n_replicates = weights.shape
    place = np.asarray(confidences, np.float64) * _SMOOTH_NODES
    surplus = (np.asarray(confidences, np.float64) - correct) / n
    cell = np.minimum(place.astype(np.int64), _SMOOTH_NODES - 1)
    share = place - cell
    masses = np.zeros((_SMOOTH_NODES + 1, n_replicates))
    bin_totals(cell, (1 - share) * surplus, weights, masses)
    bin_totals(cell + 1, share * surplus, weights, masses)
    masses = np.ascontiguousarray(masses.T)
    floor = np.abs(masses.sum(axis=1))
    whole = np.bincount(cell, (1 - share) * surplus, _SMOOTH_NODES + 1).astype(np.float64)
    whole += np.bincount(cell + 1, share * surplus, _SMOOTH_NODES + 1)
    sample = Smoother(whole)
    start = max(sample.fixed_point(1.0), 2.0 / _SMOOTH_NODES)
    # Near its fixed point the error of every replicate falls about as fast as that of the sample.
    slope = min((sample.at(min(1.1 * start, 1.0)) - sample.at(0.9 * start)) / (0.2 * start), 0.0)
    points = min(1 << max(9, int(np.ceil(np.log2(10 / start)))), _SMOOTH_NODES)
    masses[:, 1:-1] /= 2
    coefficients = dct(masses, type=1, axis=1)[:, :points].astype(np.float32)
    sigma = np.maximum(np.full(n_replicates, start), floor)
    gap = np.full(n_replicates, np.inf)
    for _ in range(8):
        values = _sizes(coefficients, sigma, points)
        gap = np.where((values <= sigma) & (sigma <= floor), 0.0, values - sigma)
        if np.abs(gap).max() < 1e-4 * start:
            break
        sigma = np.clip(sigma + gap / (1 - slope), floor, 1.0)
    masses[:, 1:-1] *= 2
    for late in np.flatnonzero(np.abs(gap) > 1e-3 * start):
        sigma[late] = Smoother(masses[late]).fixed_point(1.0)
    return np.asarray(sigma)


def _sizes(coefficients: NDArray[np.float32], sigma: Vector, points: int) -> Vector:
    """Integral of the size of each row's cosine series, damped by its own width."""
    from scipy.fft import dct

    # A resample without residual has a width of 0, which no cosine is damped by.
    kept = min(int(7.0 / max(np.pi * float(sigma.min()), 1e-12)) + 1, coefficients.shape[1])
    damped = np.zeros((sigma.size, points + 1), np.float32)
    exponent = (sigma[:, None] * (np.pi * np.arange(kept)[None, :])).astype(np.float32)
    np.multiply(coefficients[:, :kept], np.exp(-0.5 * exponent**2), out=damped[:, :kept])
    values = dct(damped, type=1, axis=1, overwrite_x=True)
    left, right = values[:, :-1], values[:, 1:]
    areas = np.abs(left) + np.abs(right)
    row, column = np.nonzero(left * right < 0)
    a, b = left[row, column], right[row, column]
    areas[row, column] = (a * a + b * b) / (np.abs(a) + np.abs(b))
    return np.asarray(areas.sum(axis=1, dtype=np.float64) / (2 * points))
