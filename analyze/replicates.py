"""Metrics on bootstrap replicates: the number each metric takes where image i is drawn w_i times.

Every function takes weights of :class:`analyze.intervals.BootstrapWeights`, (n, R) uint8 whose columns each
sum to n, and gives exactly what the metric gives on the drawn rows, for all R at once. Rows are sorted and
binned once. Weights may come in blocks of replicates; results are then joined. Inputs are those the metric
itself accepted before.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analyze.metrics.binning import bin_numbers, edges_of
from cache_schema.errors import UserError

Vector = NDArray[np.float64]
Weights = NDArray[np.uint8]
Column = NDArray[Any]

_ROWS = 4096
_SMOOTH_NODES = 2048


def _matching(n: int, weights: Weights) -> None:
    if weights.ndim != 2 or weights.shape[0] != n or weights.dtype != np.uint8:
        raise UserError(f"weights must be (n, R) uint8 for n = {n} rows; got {weights.dtype} {weights.shape}")


def mean_replicates(values: Column, weights: Weights) -> Vector:
    """Return the weighted means of one column (n,) -> (R,), or of several (n, k) -> (k, R).

    For accuracies, NLL, Brier score, signed gap and whatever else is a mean over images. Products are
    float32 within blocks of rows, blocks are added in float64: the error is about 1e-7 of the largest
    value.
    """
    _matching(len(values), weights)
    table = values[:, None] if values.ndim == 1 else values
    total = np.zeros((table.shape[1], weights.shape[1]))
    for start in range(0, len(table), _ROWS):
        rows = slice(start, start + _ROWS)
        total += table[rows].T.astype(np.float32) @ weights[rows].astype(np.float32)
    total /= len(table)
    means: Vector = total[0] if values.ndim == 1 else total
    return means


def ece_replicates(
    confidences: Column,
    correct: Column,
    weights: Weights,
    *,
    n_bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    norm: Literal["l1", "l2", "max"] = "l1",
    debias: bool = False,
) -> Vector:
    """Return the expected calibration error of each replicate, (R,); options as for the metric.

    Equal-mass edges are those of the sample, not made anew for each replicate.
    """
    from analyze.metrics import _fast

    _matching(len(confidences), weights)
    edges = edges_of(confidences, n_bins, binning)
    numbers = bin_numbers(confidences, edges)
    shape = (edges.size - 1, weights.shape[1])
    surplus = np.zeros(shape)
    _fast.bin_totals(numbers, confidences - correct.astype(np.float64), weights, surplus)
    if norm == "l1":
        return np.asarray(np.abs(surplus).sum(axis=0) / len(confidences))
    counts = np.zeros(shape)
    _fast.bin_totals(numbers, np.ones(numbers.size), weights, counts)
    gaps = np.abs(surplus) / np.maximum(counts, 1)
    if norm == "max":
        return np.asarray(gaps.max(axis=0))
    squares = gaps**2
    if debias:
        rights = np.zeros(shape)
        _fast.bin_totals(numbers, correct.astype(np.float64), weights, rights)
        rate = rights / np.maximum(counts, 1)
        squares = np.where(counts > 1, squares - rate * (1 - rate) / np.maximum(counts - 1, 1), 0.0)
    return np.asarray(np.sqrt(np.maximum((squares * counts).sum(axis=0) / len(confidences), 0.0)))


def smooth_replicates(confidences: Column, correct: Column, weights: Weights) -> Vector:
    """Return the smooth calibration error (reflected kernel, fixed point) of each replicate, (R,).

    Rows enter a grid of 2,049 nodes by linear weights and integrals are taken at about a tenth of the width:
    good to about 0.1 % of the value, far below the interval's own width.
    """
    from scipy.fft import dct

    from analyze.metrics import _fast
    from analyze.metrics.smooth_calibration import Smoother

    _matching(len(confidences), weights)
    n, n_replicates = weights.shape
    place = np.asarray(confidences, np.float64) * _SMOOTH_NODES
    surplus = (np.asarray(confidences, np.float64) - correct) / n
    cell = np.minimum(place.astype(np.int64), _SMOOTH_NODES - 1)
    share = place - cell
    masses = np.zeros((_SMOOTH_NODES + 1, n_replicates))
    _fast.bin_totals(cell, (1 - share) * surplus, weights, masses)
    _fast.bin_totals(cell + 1, share * surplus, weights, masses)
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

    kept = min(int(7.0 / (np.pi * float(sigma.min()))) + 1, coefficients.shape[1])
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


def _descending(scores: Column) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows from the highest score, and where groups of equal scores begin, with the end."""
    order = np.argsort(scores, kind="stable")[::-1]
    ordered = scores[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [scores.size]])
    return np.ascontiguousarray(order), starts


def detection_replicates(
    id_scores: Column,
    ood_scores: Column,
    id_weights: Weights,
    ood_weights: Weights,
    *,
    tpr: float = 0.95,
) -> dict[str, Vector]:
    """Return ``auroc``, ``fpr95_id``, ``fpr95_ood``, ``aupr_in`` and ``aupr_out`` of each replicate.

    One sort and one pass. The two sets are resampled independently, each with its own weights; the FPR
    names keep 95 whatever ``tpr`` is asked for.
    """
    from analyze.metrics import _fast

    _matching(len(id_scores), id_weights)
    _matching(len(ood_scores), ood_weights)
    if id_weights.shape[1] != ood_weights.shape[1]:
        raise UserError(f"{id_weights.shape[1]} ID replicates, {ood_weights.shape[1]} OOD replicates")
    order, starts = _descending(np.concatenate([id_scores, ood_scores]))
    out = np.empty((5, id_weights.shape[1]))
    _fast.detection_totals(
        order,
        starts,
        len(id_scores),
        id_weights,
        ood_weights,
        np.float32(_needed(len(id_scores), tpr)),
        np.float32(_needed(len(ood_scores), tpr)),
        out,
    )
    return dict(zip(("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out"), out, strict=True))


def _needed(n: int, tpr: float) -> int:
    """Return how many of n positives are at least the true-positive rate."""
    return int(np.searchsorted(np.arange(1, n + 1) / n, tpr, side="left")) + 1


def selective_replicates(confidences: Column, correct: Column, weights: Weights) -> dict[str, Vector]:
    """Return ``aurc``, ``e_aurc``, ``augrc`` and ``correctness_auroc`` of each replicate, in one pass.

    AUROC of correctness follows from AUGRC and accuracy; it is NaN where a replicate holds no error, or
    nothing else.
    """
    from analyze.metrics import _fast

    _matching(len(confidences), weights)
    order, starts = _descending(np.asarray(confidences))
    out = np.empty((3, weights.shape[1]))
    _fast.selective_totals(order, starts, ~np.asarray(correct, np.bool_), weights, out)
    area, joint, error = out
    both = (error > 0) & (error < 1)
    room = np.where(both, error * (1 - error), 1.0)
    auroc = np.where(both, 1 - (joint - error**2 / 2) / room, np.nan)
    optimum = error + (1 - error) * np.log1p(-np.minimum(error, 1 - 1e-16))
    return {"aurc": area, "e_aurc": area - optimum, "augrc": joint, "correctness_auroc": auroc}
