"""The classwise calibration error on bootstrap replicates, gathered block by block together with the error itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.kernels.ranking import bin_totals

_CLASSES = 64
"""Classes whose cells are held for all replicates at once."""


class ClasswiseReplicates:
    """Surplus (probability less outcome) of every class by replicate, and the entries beyond the first bin.

    Nearly all probabilities lie in the first bin, whose surplus is the column's total less the rest: the totals are
    one matrix product a block, and what lies beyond, at most ``n_bins - 1`` entries a row, is kept for the end.
    Memory: 8 bytes a class and replicate, 24 an entry (a few a row in practice).

    Parameters
    ----------
    n_classes, n_bins
        Size of the table; bins are of equal width, (low, high].
    weights
        (n, R) uint8: how often each replicate draws each row that counts.
    """

    def __init__(self, n_classes: int, n_bins: int, weights: NDArray[np.uint8]) -> None:
        self.n_bins = n_bins
        self.weights = weights
        self._totals = np.zeros((n_classes, weights.shape[1]))
        self._rows: list[NDArray[np.int64]] = []
        self._cells: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float64]] = []
        self._done = 0

    def add(self, probabilities: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> None:
        """Add the next rows, in the order of the weights: (m, C) probabilities and (m,) labels."""
        m = len(probabilities)
        surplus = probabilities.copy()
        surplus[np.arange(m), labels] -= 1.0
        drawn = self.weights[self._done : self._done + m].astype(np.float32)
        self._totals += surplus.astype(np.float32).T @ drawn
        row, column = np.nonzero(probabilities > 1.0 / self.n_bins)
        place = np.minimum(np.ceil(probabilities[row, column] * self.n_bins).astype(np.int64) - 1, self.n_bins - 1)
        # A probability of just above the edge may round into the first bin, which the totals hold already.
        beyond = place > 0
        row, column, place = row[beyond], column[beyond], place[beyond]
        self._rows.append(row + self._done)
        self._cells.append(column * self.n_bins + place)
        self._values.append(surplus[row, column])
        self._done += m

    def errors(self) -> NDArray[np.float64]:
        """Return the classwise error of each replicate, (R,)."""
        n_classes, n_replicates = self._totals.shape
        rows, cells, values = (np.concatenate(parts) for parts in (self._rows, self._cells, self._values))
        order = np.argsort(cells, kind="stable")
        rows, cells, values = rows[order], cells[order], values[order]
        total = np.zeros(n_replicates)
        for first in range(0, n_classes, _CLASSES):
            classes = min(_CLASSES, n_classes - first)
            here = slice(*np.searchsorted(cells, [first * self.n_bins, (first + classes) * self.n_bins]))
            table = np.zeros((classes * self.n_bins, n_replicates))
            drawn = np.ascontiguousarray(self.weights[rows[here]])
            bin_totals(cells[here] - first * self.n_bins, values[here], drawn, table)
            by_class = table.reshape(classes, self.n_bins, n_replicates)
            by_class[:, 0] = self._totals[first : first + classes] - by_class.sum(axis=1)
            total += np.abs(by_class).sum(axis=(0, 1))
        return total / (n_classes * len(self.weights))
