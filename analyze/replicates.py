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

    Rows enter a grid of 2,049 nodes by linear weights, which is good to about 1e-4 of the value.
    """
    from analyze.metrics import _fast
    from analyze.metrics.smooth_calibration import smooth_calibration_error

    _matching(len(confidences), weights)
    n, n_replicates = weights.shape
    place = np.asarray(confidences, np.float64) * _SMOOTH_NODES
    surplus = np.asarray(confidences, np.float64) - correct
    cell = np.minimum(place.astype(np.int64), _SMOOTH_NODES - 1)
    share = place - cell
    masses = np.zeros((_SMOOTH_NODES + 1, n_replicates))
    _fast.bin_totals(cell, (1 - share) * surplus / n, weights, masses)
    _fast.bin_totals(cell + 1, share * surplus / n, weights, masses)
    floor = np.abs(masses.sum(axis=0))
    start = max(smooth_calibration_error(confidences, correct), 1e-4)
    # The smallest width that any replicate may need decides how many cosines are kept.
    smallest = max(min(start / 2, float(floor.min()) if floor.min() > 0 else start / 2), 2.0 / _SMOOTH_NODES)
    kept = min(int(7.0 / (np.pi * smallest)) + 1, _SMOOTH_NODES)
    k = np.arange(kept)
    nodes = np.arange(_SMOOTH_NODES + 1)
    coefficients = np.cos(np.pi / _SMOOTH_NODES * (k[:, None] * nodes[None, :])) @ masses
    coefficients[1:] *= 2
    points = max(256, 4 * kept)
    waves = np.cos(np.pi / points * (np.arange(points + 1)[:, None] * k[None, :]))

    def size(sigma: Vector) -> Vector:
        damped = coefficients * np.exp(-0.5 * (np.pi * k[:, None] * sigma[None, :]) ** 2)
        values = waves @ damped
        left, right = values[:-1], values[1:]
        whole = np.abs(left) + np.abs(right)
        crossing = left * right < 0
        areas = np.where(crossing, (left**2 + right**2) / np.where(crossing, whole, 1.0), whole)
        return np.asarray(areas.sum(axis=0) / (2 * points))

    low = np.maximum(floor, smallest)
    high = np.maximum(np.minimum(size(low), 1.0), low)
    value_low, value_high = high - low, np.minimum(size(high) - high, 0.0)
    for _ in range(40):
        # False position between the two ends, the stale end's value halved (Illinois): every replicate on
        # its own.
        span = value_low - value_high
        middle = np.where(span > 0, low + (high - low) * value_low / np.where(span > 0, span, 1.0), low)
        value = size(middle) - middle
        if np.max(np.abs(value)) < 1e-7:
            low = middle
            break
        above = value > 0
        value_high = np.where(above, value_high / 2, value)
        value_low = np.where(above, value, value_low / 2)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.maximum(np.where(low <= smallest, floor, low), floor))


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
