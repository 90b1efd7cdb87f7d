"""Vector scaling as a fit: the columns after the fitted scale and bias of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.vector_scaling import VectorFit, fit_vector_scaling_store
from analyze.fits.base import Columns, Fit, Fitted, LogitBlock, Target
from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics
from analyze.reading.views import view_statistics
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard

PREFIX = "vector_"
_ROWS = 512


@dataclass(frozen=True, eq=False)
class FittedVector(Fitted):
    """A scale and a bias for every class.

    Attributes
    ----------
    solution
        The parameters.
    card
        Of the ID set that they were fitted on.
    """

    solution: VectorFit
    card: DatasetCard
    name: ClassVar[str] = "vector"
    aggregate: ClassVar[str] = "classwise_vector"

    def why_not(self, target: Target) -> str:
        """Compare the classes of the ID set with those of the target."""
        fit, width = self.solution, target.n_columns
        where = f"vector scaling was fitted on {self.card.id}"
        if width != fit.scale.size or target.card.class_space != self.card.class_space:
            return f"{where}, whose classes are others than those of {target.card.id}"
        unknown = target.view.columns
        unknown = unknown[~np.isfinite(fit.scale[unknown])]
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
            f"{PREFIX}confidence": scaled[kernels.CONFIDENCE],
            f"{PREFIX}label_log_probability": scaled[kernels.LABEL_LOG_PROBABILITY],
            f"{PREFIX}label_rank": out.rank,
            f"{PREFIX}sum_squares": scaled[kernels.SUM_SQUARES],
        }

    def logits(self, block: LogitBlock) -> tuple[NDArray[Any], float]:
        """Return the moved logits."""
        return self._moved(block), 1.0

    def _moved(self, block: LogitBlock) -> NDArray[np.float32]:
        """Return scale * logits + bias, the largest of the classes that compete taken off each row."""

        def make() -> NDArray[np.float32]:
            moved = np.empty(block.logits.shape, np.float32)
            kept = block.view.columns
            for start in range(0, len(moved), _ROWS):
                here = slice(start, start + _ROWS)
                logits = self.solution.apply(block.logits[here].astype(np.float64) + block.centers[here, None])
                with np.errstate(invalid="ignore"):
                    moved[here] = logits - logits[:, kept].max(axis=1, keepdims=True)
            return moved

        found: NDArray[np.float32] = block.once(self, make)
        return found

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return what the fit found; every scale and bias only for the set that it was fitted on."""
        fit = self.solution
        used = np.isfinite(fit.scale)
        given: dict[str, Any] = {
            "dataset": self.card.id,
            "digest": fit.digest,
            "n": fit.n,
            "nll_before": fit.nll_before,
            "nll_after": fit.nll_after,
            "scale": [float(f(fit.scale[used])) for f in (np.min, np.mean, np.max)],
            "bias": [float(f(fit.bias[used])) for f in (np.min, np.mean, np.max)],
        }
        if card.id == self.card.id:
            both = {"scale": fit.scale, "bias": fit.bias}
            given["parameters"] = {k: [None if v != v else v for v in values.tolist()] for k, values in both.items()}
        return {"vector": given}


class VectorScaling(Fit):
    """A scale and a bias for every class, by minimal NLL."""

    name = "vector"
    gives = (PREFIX,)
    fact = "vector"
    aggregates = ("classwise_vector",)
    roles = ("id", "shift")
    absent = "the summary holds no vector scaling: compute it from the big stores"

    def fit(self, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1) -> FittedVector:
        """Fit scales and biases on labelled rows of a store."""
        return FittedVector(fit_vector_scaling_store(source, rows, threads=threads), source.dataset)
