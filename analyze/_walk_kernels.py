"""Bootstrap replicates of numbers that walk along sorted confidences: KS error, coverage at a risk, risk
at a coverage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze._fastmath import compiled


@compiled(nogil=True, cache=True)
def _ks(order, starts, gaps, weights, best):  # type: ignore[no-untyped-def]
    total = np.zeros(best.size)
    for g in range(starts.size - 1):
        for k in range(starts[g], starts[g + 1]):
            gap = gaps[order[k]]
            row = weights[order[k]]
            for r in range(best.size):
                total[r] += gap * row[r]
        for r in range(best.size):
            best[r] = max(best[r], abs(total[r]))


@compiled(nogil=True, cache=True)
def _points(order, starts, wrong, weights, risk, skip, coverage, at_risk, at_coverage):  # type: ignore[no-untyped-def]
    answered = np.zeros(at_risk.size)
    errors = np.zeros(at_risk.size)
    n = order.size
    for g in range(starts.size - 1):
        for k in range(starts[g], starts[g + 1]):
            row = weights[order[k]]
            bad = wrong[order[k]]
            for r in range(at_risk.size):
                answered[r] += row[r]
                errors[r] += row[r] * bad
        for r in range(at_risk.size):
            if answered[r] > skip and errors[r] <= risk * answered[r]:
                at_risk[r] = answered[r] / n
            if np.isnan(at_coverage[r]) and answered[r] >= coverage * n:
                at_coverage[r] = errors[r] / answered[r]


def _groups(confidences: NDArray[Any], *, ascending: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(confidences, kind="stable")
    if not ascending:
        order = order[::-1]
    ordered = confidences[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [order.size]])
    return np.ascontiguousarray(order), starts


def ks_replicates(
    confidences: NDArray[Any], correct: NDArray[np.bool_], weights: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return the KS calibration error of each replicate, (R,)."""
    order, starts = _groups(confidences, ascending=True)
    best = np.zeros(weights.shape[1])
    _ks(order, starts, confidences.astype(np.float64) - correct, weights, best)
    return best / confidences.size


def point_replicates(
    confidences: NDArray[Any],
    correct: NDArray[np.bool_],
    weights: NDArray[np.uint8],
    *,
    risk: float = 0.0,
    skip: int = 0,
    coverage: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest coverage at a risk (beyond the first ``skip`` rows), and the risk at a coverage,
    (R,) each.
    """
    order, starts = _groups(confidences, ascending=False)
    at_risk = np.zeros(weights.shape[1])
    at_coverage = np.full(weights.shape[1], np.nan)
    wrong = (~correct).astype(np.float64)
    _points(order, starts, wrong, weights, risk, float(skip), coverage, at_risk, at_coverage)
    return at_risk, at_coverage
