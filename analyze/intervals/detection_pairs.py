"""Scores sorted once: the five detection numbers of an ID and an OOD set from a merge of two sorted columns."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.kernels.pairs import walk
from analyze.kernels.sorting import rising_order

NAMES = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")


class SortedScores(NamedTuple):
    """Finite scores from the lowest, and the rows they come from.

    Attributes
    ----------
    values
        (n,) float64, rising.
    rows
        (n,) int32.
    """

    values: NDArray[np.float64]
    rows: NDArray[np.int32]

    @classmethod
    def of(cls, scores: NDArray[Any]) -> SortedScores:
        """Sort finite scores."""
        floats = scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)
        rows, values = rising_order(floats)
        return cls(values.astype(np.float64, copy=False), rows)  # one type: the walks are compiled once


@functools.lru_cache(maxsize=256)
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
    low, high = inside.values, outside.values
    walk(low, high, needed(low.size, tpr), needed(high.size, tpr), out)
    return dict(zip(NAMES, out.tolist(), strict=True))
