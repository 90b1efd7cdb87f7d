"""Scores sorted once: the five detection numbers of an ID and an OOD set from a merge of two sorted columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.ranking import Vector, Weights, matching
from analyze.kernels.detection import detection_totals
from analyze.kernels.pairs import walk
from analyze.kernels.sorting import merge, rising_order
from closerlook_common.errors import UserError

NAMES = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")


class SortedScores(NamedTuple):
    """Finite scores from the lowest, and the rows they come from.

    Attributes
    ----------
    values
        (n,) float32 or float64, rising.
    rows
        (n,) int32.
    """

    values: NDArray[np.floating[Any]]
    rows: NDArray[np.int32]

    @classmethod
    def of(cls, scores: NDArray[Any]) -> SortedScores:
        """Sort finite scores."""
        floats = scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)
        rows, values = rising_order(floats)
        return cls(values, rows)


def alike(inside: SortedScores, outside: SortedScores) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both columns of sorted scores in one type."""
    kind = np.result_type(inside.values, outside.values)
    return inside.values.astype(kind, copy=False), outside.values.astype(kind, copy=False)


def needed(n: int, tpr: float) -> int:
    """Return how many of n positives are at least the true-positive rate."""
    return int(np.searchsorted(np.arange(1, n + 1) / n, tpr, side="left")) + 1


def detection_numbers(inside: SortedScores, outside: SortedScores, *, tpr: float = 0.95) -> dict[str, float]:
    """Return AUROC, FPR at 95 % TPR under both conventions, and AUPR (average precision) of either side.

    Equal to the functions of ``analyze.metrics`` with their defaults, by one walk.

    Parameters
    ----------
    inside, outside
        At least one score each, higher = more in-distribution.
    tpr
        Recall at which the FPR is taken; the names keep 95.
    """
    out = np.empty(5)
    low, high = alike(inside, outside)
    walk(low, high, needed(low.size, tpr), needed(high.size, tpr), out)
    return dict(zip(NAMES, out.tolist(), strict=True))


def detection_replicates(
    inside: SortedScores, outside: SortedScores, id_weights: Weights, ood_weights: Weights, *, tpr: float = 0.95
) -> dict[str, Vector]:
    """Return the five numbers of each bootstrap replicate, (R,) each.

    The two sets are resampled independently, each with its own weights (n, R) and (m, R) uint8; the FPR names
    keep 95 whatever ``tpr`` is asked for.
    """
    id_weights = matching(inside.rows.size, id_weights)
    ood_weights = matching(outside.rows.size, ood_weights)
    if id_weights.shape[1] != ood_weights.shape[1]:
        raise UserError(f"{id_weights.shape[1]} ID replicates, {ood_weights.shape[1]} OOD replicates")
    n, m = inside.rows.size, outside.rows.size
    order, starts = np.empty(n + m, np.int32), np.empty(n + m + 1, np.int32)
    low, high = alike(inside, outside)
    groups = merge(low, inside.rows, high, outside.rows, order, starts)
    out = np.empty((5, id_weights.shape[1]))
    detection_totals(
        order,
        starts[: groups + 1],
        id_weights,
        ood_weights,
        np.float32(needed(n, tpr)),
        np.float32(needed(m, tpr)),
        out,
    )
    return dict(zip(NAMES, out, strict=True))
