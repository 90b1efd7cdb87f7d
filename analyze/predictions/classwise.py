"""The classwise calibration error, gathered block by block: a table of (class, bin) instead of all probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.kernels.fitting import UNIT, classwise_rows
from analyze.kernels.statistics import as_rows, spread_rows
from analyze.reading.views import ClassView


class ClasswiseTable:
    """Hits and probability sums by class and bin of some rows.

    Parameters
    ----------
    n_classes, n_bins
        Size of the table; bins are of equal width, (low, high].
    rows
        (n,) rows of the store that count.
    part
        A table of the same kind over some of these rows, filled in its own right: they are not computed twice.
    """

    def __init__(
        self, n_classes: int, n_bins: int, rows: NDArray[np.bool_], *, part: ClasswiseTable | None = None
    ) -> None:
        self.n_bins = n_bins
        self.rows = rows
        self._part = part
        self._own = rows if part is None else rows & ~part.rows
        self.totals = np.zeros(n_classes, np.int64)
        self.sums = np.zeros((n_classes, n_bins), np.int64)
        self.hits = np.zeros((n_classes, n_bins), np.int64)

    def add(
        self,
        view: ClassView,
        block: NDArray[Any],
        places: NDArray[np.int32],
        here: slice,
        threads: int = 1,
        temperature: float = 1.0,
    ) -> None:
        """Add a block of logits (rows ``here`` of the store); probabilities are softmax(logits / temperature)."""
        use = np.ascontiguousarray(self._own[here])
        if not use.any():
            return
        scaled_already = view.groups is not None and view.rule != "max"
        logits = as_rows(view.reduce(block, temperature))
        beta = 1.0 if scaled_already else 1.0 / temperature

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

    def errors(self) -> dict[str, Any]:
        """Return the classwise errors.

        Returns
        -------
        dict
            ``classwise_ece``: mean over classes of the binary ECE of that class's probability over all rows
            (the convention of Kull et al. and SCE); ``n``: rows; ``n_bins``.
        """
        n = int(self.rows.sum())
        # Probabilities of the first bin were only added to the total. Several may round apart: never below
        # zero.
        totals, sums, hits = self.totals, self.sums.copy(), self.hits
        if self._part is not None:
            totals, sums, hits = totals + self._part.totals, sums + self._part.sums, hits + self._part.hits
        sums[:, 0] = np.maximum(totals - sums[:, 1:].sum(axis=1), 0)
        gaps = np.abs(sums / UNIT - hits)
        value = float(gaps.sum(axis=1).mean() / n)
        return {"classwise_ece": value, "n": float(n), "n_bins": self.n_bins}
