"""Calibrators that move the logits of every class: what their per-image columns have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.fits.base import Columns, Fitted, LogitBlock, Target
from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics
from analyze.reading.views import view_statistics
from cache_schema.format.records import DatasetCard

_ROWS = 512


class MovedLogits(Fitted):
    """A map of the logits of all classes to those of the calibrated probabilities.

    Attributes
    ----------
    card
        Of the ID set that it was fitted on.
    prefix, title
        Of the names of its columns, and what it is called in reasons.
    """

    card: DatasetCard
    prefix: ClassVar[str]
    title: ClassVar[str]

    @property
    @abstractmethod
    def known(self) -> NDArray[np.bool_]:
        """Columns of the logits that took part in the fit, (C,)."""

    @abstractmethod
    def move(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the moved logits of some rows, (b, C)."""

    def why_not(self, target: Target) -> str:
        """Compare the classes of the ID set with those of the target."""
        known, width = self.known, target.n_columns
        where = f"{self.title} was fitted on {self.card.id}"
        if width != known.size or target.card.class_space != self.card.class_space:
            return f"{where}, whose classes are others than those of {target.card.id}"
        unknown = target.view.columns
        unknown = unknown[~known[unknown]]
        if unknown.size:
            return f"{where}, which leaves out class {int(unknown[0])} of {target.card.id}"
        return ""

    def columns(self, block: LogitBlock) -> Columns:
        """Return confidence, label log-probability, label rank and sum of squares of the moved logits."""
        out = RowStatistics.empty(len(block), 1)
        view_statistics(
            block.view,
            self._moved(block),
            centers=np.zeros(len(block), np.float32),
            places=block.places,
            valid=block.valid,
            temperatures=[1.0],
            gen=None,
            out=out,
            offset=0,
            threads=block.threads,
        )
        scaled = out.scaled[0]
        return {
            f"{self.prefix}confidence": scaled[kernels.CONFIDENCE],
            f"{self.prefix}label_log_probability": scaled[kernels.LABEL_LOG_PROBABILITY],
            f"{self.prefix}label_rank": out.rank,
            f"{self.prefix}sum_squares": scaled[kernels.SUM_SQUARES],
        }

    def logits(self, block: LogitBlock) -> tuple[NDArray[Any], float]:
        """Return the moved logits."""
        return self._moved(block), 1.0

    def _moved(self, block: LogitBlock) -> NDArray[np.float32]:
        """Return the moved logits, the largest of the classes that compete taken off each row."""

        def make() -> NDArray[np.float32]:
            moved = np.empty(block.logits.shape, np.float32)
            kept = block.view.columns
            for start in range(0, len(moved), _ROWS):
                here = slice(start, start + _ROWS)
                logits = self.move(block.logits[here].astype(np.float64) + block.centers[here, None])
                with np.errstate(invalid="ignore"):
                    moved[here] = logits - logits[:, kept].max(axis=1, keepdims=True)
            return moved

        found: NDArray[np.float32] = block.once(self, make)
        return found


def fit_facts(card: DatasetCard, fit: Any) -> dict[str, Any]:
    """Return what a summary keeps of every such fit: where it was made, and how well it fits."""
    return {
        "dataset": card.id,
        "digest": fit.digest,
        "n": fit.n,
        "nll_before": fit.nll_before,
        "nll_after": fit.nll_after,
    }
