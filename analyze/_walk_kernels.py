"""Bootstrap replicates of numbers that walk along sorted confidences: KS error, coverage at a risk, risk
at a coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze._fastmath import compiled

_FAST = {"contract", "nsz", "nnan"}


@compiled(fastmath=_FAST, nogil=True, cache=True)
def _ks(order, starts, gaps, weights, best):  # type: ignore[no-untyped-def]
    total = np.zeros(best.size)
    for g in range(starts.size - 1):
        for k in range(starts[g], starts[g + 1]):
            gap = gaps[order[k]]
            row = weights[order[k]]
            for r in range(best.size):
                total[r] += gap * row[r]
        for r in range(best.size):
            size = abs(total[r])
            best[r] = size if size > best[r] else best[r]


@compiled(fastmath=_FAST, nogil=True, cache=True)
def _points(order, starts, wrong, weights, risks, skips, coverages, at_risk, at_coverage):  # type: ignore[no-untyped-def]
    """Walk from the most confident row down; counts are float32: whole numbers below 2^24, exact."""
    n_replicates = weights.shape[1]
    answered, errors, before = np.zeros((3, n_replicates), np.float32)
    n = np.float32(order.size)
    for g in range(starts.size - 1):
        before[:] = answered
        for k in range(starts[g], starts[g + 1]):
            row = weights[order[k]]
            bad = wrong[order[k]]
            for r in range(n_replicates):
                more = np.float32(row[r])
                answered[r] += more
                errors[r] += more * bad
        for q in range(risks.size):
            best = at_risk[q]
            for r in range(n_replicates):
                fits = (answered[r] > skips[q]) & (errors[r] <= risks[q] * answered[r])
                best[r] = answered[r] if fits else best[r]
        for q in range(coverages.size):
            found = at_coverage[q]
            for r in range(n_replicates):
                here = (before[r] < coverages[q] * n) & (answered[r] >= coverages[q] * n)
                found[r] = errors[r] / answered[r] if here else found[r]


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
    risks: Sequence[tuple[float, int]] = (),
    coverages: Sequence[float] = (),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points of the risk-coverage curve of each replicate, in one walk.

    Parameters
    ----------
    confidences, correct, weights
        (n,), (n,) and (n, R).
    risks
        Pairs of a risk and the leading rows to skip: the largest coverage at that risk.
    coverages
        The risk at the first point of that coverage.

    Returns
    -------
    tuple
        (len(risks), R) coverages and (len(coverages), R) risks.
    """
    order, starts = _groups(confidences, ascending=False)
    n_replicates = weights.shape[1]
    at_risk = np.zeros((len(risks), n_replicates), np.float32)
    at_coverage = np.zeros((len(coverages), n_replicates), np.float32)
    # A hair of slack, so that 1 - 0.99 is the risk 0.01 in float32 as well.
    bounds = np.array([risk * (1 + 1e-6) for risk, _ in risks], np.float32)
    skips = np.array([skip for _, skip in risks], np.float32)
    wanted = np.array([coverage * (1 - 1e-7) for coverage in coverages], np.float32)
    wrong = (~correct).astype(np.float32)
    _points(order, starts, wrong, weights, bounds, skips, wanted, at_risk, at_coverage)
    return at_risk / np.float64(order.size), at_coverage.astype(np.float64)
