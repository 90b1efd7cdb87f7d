"""Venn-Abers calibration: two isotonic fits a confidence, one with it as right and one with it as wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.calibrators.confidence_maps import checked_confidences, checked_fit_columns

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VennAbers:
    """A fitted Venn-Abers predictor.

    Attributes
    ----------
    points
        (k,) distinct confidences that were fitted on, rising.
    at_points, between
        (2, k) and (2, k + 1) isotonic fit at a confidence that is added as wrong (row 0) and as right (row 1): at each
        point, and below, between and above them.
    """

    points: Floats
    at_points: Floats
    between: Floats

    def bounds(self, confidences: ArrayLike) -> tuple[Floats, Floats]:
        """Return p0 and p1, (n,) each in [0, 1], p0 <= p1: one of them is the probability of a calibrated predictor."""
        c = checked_confidences(confidences)
        place = np.searchsorted(self.points, c, side="left")
        inside = np.minimum(place, self.points.size - 1)
        known = self.points[inside] == c
        low, high = (np.where(known, self.at_points[k, inside], self.between[k, place]) for k in (0, 1))
        return low, high

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return p1 / (1 - p0 + p1), (n,) in [0, 1]: the value of least worst log loss between the two."""
        low, high = self.bounds(confidences)
        return np.asarray(high / (1 - low + high), np.float64)


def fit_venn_abers(confidences: ArrayLike, correct: ArrayLike) -> VennAbers:
    """Fit an inductive Venn-Abers predictor.

    Parameters
    ----------
    confidences
        (n,) in [0, 1].
    correct
        (n,) whether the prediction was right.

    Raises
    ------
    UserError
        For NaN or confidences outside [0, 1] (the row is named), no rows, lengths that differ.

    References
    ----------
    Vovk and Petej, "Venn-Abers predictors", UAI 2014; Vovk, Petej and Fedorova, NIPS 2015, for the merged value.
    """
    c, right = checked_fit_columns(confidences, correct)
    points, place = np.unique(c, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    hits = np.bincount(place, weights=right).astype(np.float64)
    k = points.size
    left = _blocks(hits, counts)
    # Of the mirrored rows the same blocks, with failures for successes: those that end at the right.
    right_blocks = _blocks((counts - hits)[::-1], counts[::-1])
    at_points, between = np.empty((2, k)), np.empty((2, k + 1))
    for label in (0, 1):
        for j in range(k):
            at_points[label, j] = _pooled(hits[j] + label, counts[j] + 1.0, left, right_blocks, j, k - 1 - j)
        for j in range(k + 1):
            between[label, j] = _pooled(float(label), 1.0, left, right_blocks, j, k - j)
    return VennAbers(points, at_points, between)


Blocks = tuple[list[int], list[float], list[float]]


def _blocks(hits: Floats, counts: Floats) -> Blocks:
    """Return the last block of the isotonic fit of each prefix: where it starts, its successes and its rows.

    The block before it is the last one of the prefix that ends where it starts.
    """
    starts: list[int] = []
    sums: list[float] = []
    masses: list[float] = []
    for j, (hit, count) in enumerate(zip(hits.tolist(), counts.tolist(), strict=True)):
        start, total, mass = j, hit, count
        while start > 0 and sums[start - 1] * mass >= total * masses[start - 1]:
            total, mass, start = total + sums[start - 1], mass + masses[start - 1], starts[start - 1]
        starts.append(start)
        sums.append(total)
        masses.append(mass)
    return starts, sums, masses


def _pooled(total: float, mass: float, left: Blocks, right: Blocks, before: int, after: int) -> float:
    """Return the isotonic fit at one place: its block takes in neighbours as long as they are out of order.

    ``before`` points lie on the left and ``after`` on the right, whose blocks are counted from the far end.
    """
    moved = True
    while moved:
        moved = False
        while before > 0 and left[1][before - 1] * mass >= total * left[2][before - 1]:
            total, mass = total + left[1][before - 1], mass + left[2][before - 1]
            before, moved = left[0][before - 1], True
        while after > 0:
            hits = right[2][after - 1] - right[1][after - 1]
            if hits * mass > total * right[2][after - 1]:
                break
            total, mass = total + hits, mass + right[2][after - 1]
            after, moved = right[0][after - 1], True
    return total / mass
