"""The classwise calibration error, gathered block by block: a table of (class, bin) instead of all
probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze._fit_kernels import UNIT, classwise_rows
from analyze._kernels import as_rows, spread_rows
from analyze.views import ClassView


class ClasswiseTable:
    """Hits and probability sums by class and bin of some rows at one temperature.

    Parameters
    ----------
    n_classes, n_bins
        Size of the table; bins are of equal width, (low, high].
    temperature
        Probabilities are softmax(logits / temperature).
    rows
        (n,) rows of the store that count.
    """

    def __init__(self, n_classes: int, n_bins: int, temperature: float, rows: NDArray[np.bool_]) -> None:
        self.n_bins = n_bins
        self.temperature = float(temperature)
        self.rows = rows
        self.totals = np.zeros(n_classes, np.int64)
        self.sums = np.zeros((n_classes, n_bins), np.int64)
        self.hits = np.zeros((n_classes, n_bins), np.int64)

    def add(
        self, view: ClassView, block: NDArray[Any], places: NDArray[np.int32], here: slice, threads: int = 1
    ) -> None:
        """Add a block of logits (rows ``here`` of the store)."""
        use = np.ascontiguousarray(self.rows[here])
        if not use.any():
            return
        scaled_already = view.groups is not None and view.rule != "max"
        logits = as_rows(view.reduce(block, self.temperature))
        beta = 1.0 if scaled_already else 1.0 / self.temperature

        found: list[list[NDArray[np.int64]]] = []

        def work(start: int, stop: int) -> int:
            parts = [np.zeros_like(array) for array in (self.totals, self.sums, self.hits)]
            classwise_rows(logits, places, use, beta, self.n_bins, *parts, start, stop)
            found.append(parts)
            return -1

        spread_rows(work, len(use), threads)
        for totals, sums, hits in found:
            self.totals += totals
            self.sums += sums
            self.hits += hits

    def errors(self) -> dict[str, float]:
        """Return the classwise errors.

        Returns
        -------
        dict
            ``classwise_ece``: mean over classes of the binary ECE of that class's probability over all
            rows (the
            convention of Kull et al. and SCE); ``n``: rows.
        """
        n = int(self.rows.sum())
        # Probabilities of the first bin were only added to the total. Several may round apart: never below
        # zero.
        sums = self.sums.copy()
        sums[:, 0] = np.maximum(self.totals - sums[:, 1:].sum(axis=1), 0)
        gaps = np.abs(sums / UNIT - self.hits)
        return {"classwise_ece": float(gaps.sum(axis=1).mean() / n), "n": float(n)}
