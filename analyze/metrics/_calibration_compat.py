"""ECE as three widely used programs compute it, quirks included, for comparing with published numbers.

Written from their documented behaviour: torchmetrics 1.9 (multiclass), netcal 1.4, and the ``_ECELoss``
that goes with Guo et al. (2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.metrics._checks import Bools, Floats
from closerlook_common.errors import UserError


def _single_edges(n_bins: int) -> NDArray[np.float32]:
    """Edges as torch's float32 ``linspace`` makes them: from both ends towards the middle, rounded once."""
    step = np.float64(np.float32(1.0) / np.float32(n_bins))
    places = np.arange(n_bins + 1)
    # float64 holds these products exactly, as a fused multiply-add does.
    edges = np.where(places < (n_bins + 1) // 2, step * places, 1.0 - step * (n_bins - places))
    return edges.astype(np.float32)


def torchmetrics_error(confidences: Floats, correct: Bools, n_bins: int, norm: str) -> float:
    """Bins [lo, hi), a bin of its own for confidence 1.0, sums in float32 from the first row to the last."""
    single = confidences.astype(np.float32)
    numbers = np.searchsorted(_single_edges(n_bins), single, side="right") - 1
    counts, sums, rights = (np.zeros(n_bins + 1, np.float32) for _ in range(3))
    np.add.at(counts, numbers, np.float32(1))
    np.add.at(sums, numbers, single)
    np.add.at(rights, numbers, correct.astype(np.float32))
    held = np.maximum(counts, np.float32(1))  # an empty bin has sums of zero, and a gap of zero
    gaps = np.abs(rights / held - sums / held)
    share = counts / counts.sum()
    if norm == "l1":
        return float((gaps * share).sum())
    if norm == "max":
        return float(gaps.max())
    return float(np.sqrt((gaps**2 * share).sum()))


def netcal_error(confidences: Floats, correct: Bools, n_bins: int, binning: str, norm: str) -> float:
    """Confidences clipped to [eps, 1 - eps] of their type, bins [lo, hi); ``max`` is its MCE."""
    if norm == "l2":
        raise UserError("netcal has no L2 calibration error; compat='netcal' takes norm='l1' or 'max'")
    eps = np.finfo(confidences.dtype).eps
    clipped = np.clip(confidences, eps, 1.0 - eps)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    if binning == "mass":
        edges = np.quantile(clipped, edges)
        edges[0], edges[-1] = 0.0, 1.0
        if np.any(np.diff(edges) == 0):
            raise UserError("netcal has no equal-mass bins where many confidences are equal")
    numbers = np.searchsorted(edges, clipped, side="right") - 1
    counts = np.bincount(numbers, minlength=n_bins).astype(np.float64)
    held = np.maximum(counts, 1)
    gaps = np.abs(np.bincount(numbers, correct, n_bins) / held - np.bincount(numbers, clipped, n_bins) / held)
    return float(gaps.max() if norm == "max" else (gaps * counts / counts.sum()).sum())


def guo_error(confidences: Floats, correct: Bools, n_bins: int) -> float:
    """Bins (lo, hi] with float32 edges; a confidence of exactly 0 falls out; sums in the input's type."""
    kind: Any = np.float64 if confidences.dtype == np.float64 else np.float32
    edges = _single_edges(n_bins).astype(kind)
    numbers = np.searchsorted(edges, confidences.astype(kind), side="left") - 1
    kept = numbers >= 0
    counts = np.bincount(numbers[kept], minlength=n_bins)
    held = np.maximum(counts, 1)
    means = (np.bincount(numbers[kept], confidences[kept], n_bins) / held).astype(kind)
    rights = (np.bincount(numbers[kept], correct[kept], n_bins) / held).astype(kind)
    shares = (counts / confidences.size).astype(kind)
    return float((np.abs(means - rights) * shares).sum(dtype=kind))
