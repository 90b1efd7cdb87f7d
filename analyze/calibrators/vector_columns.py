"""Per-image statistics after vector scaling: blocks of stored logits in, columns of a summary out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.vector_scaling import VectorFit
from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics
from analyze.reading.views import ClassView, view_statistics
from cache_schema.records import DatasetCard

_ROWS = 512


class VectorStatistics:
    """Statistics of n rows under a fitted scale and bias per class, gathered block by block."""

    def __init__(self, n: int, fit: VectorFit) -> None:
        self.fit = fit
        self._out = RowStatistics.empty(n, 1)

    def add(
        self,
        view: ClassView,
        block: NDArray[Any],
        centers: NDArray[np.float32],
        places: NDArray[np.int32],
        valid: NDArray[np.bool_],
        offset: int,
        threads: int = 1,
    ) -> NDArray[np.float32]:
        """Add a block of centred logits whose first row is row ``offset``; the scaled logits, their top taken off."""
        moved = np.empty(block.shape, np.float32)
        kept = view.columns
        for start in range(0, len(block), _ROWS):
            here = slice(start, start + _ROWS)
            logits = self.fit.apply(block[here].astype(np.float64) + centers[here, None])
            with np.errstate(invalid="ignore"):
                moved[here] = logits - logits[:, kept].max(axis=1, keepdims=True)
        view_statistics(
            view,
            moved,
            centers=np.zeros(len(block), np.float32),
            places=places,
            valid=valid,
            temperatures=[1.0],
            gen=None,
            out=self._out,
            offset=offset,
            threads=threads,
        )
        return moved

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the ``vector_`` columns of a summary."""
        scaled = self._out.scaled[0]
        return {
            "vector_confidence": scaled[kernels.CONFIDENCE],
            "vector_label_log_probability": scaled[kernels.LABEL_LOG_PROBABILITY],
            "vector_label_rank": self._out.rank,
            "vector_sum_squares": scaled[kernels.SUM_SQUARES],
        }


def vector_facts(fit: VectorFit, dataset: str, *, parameters: bool) -> dict[str, Any]:
    """Return what a summary tells of a fit, JSON-ready.

    Parameters
    ----------
    fit
        The fit.
    dataset
        Id of the set it was fitted on.
    parameters
        Also every scale and bias: told once, by the summary of the set it was fitted on.
    """
    used = np.isfinite(fit.scale)
    told: dict[str, Any] = {
        "dataset": dataset,
        "digest": fit.digest,
        "n": fit.n,
        "nll_before": fit.nll_before,
        "nll_after": fit.nll_after,
        "scale": [float(f(fit.scale[used])) for f in (np.min, np.mean, np.max)],
        "bias": [float(f(fit.bias[used])) for f in (np.min, np.mean, np.max)],
    }
    if parameters:
        both = {"scale": fit.scale, "bias": fit.bias}
        told["parameters"] = {k: [None if v != v else v for v in values.tolist()] for k, values in both.items()}
    return told


def why_not_applied(fit: VectorFit, fitted_on: DatasetCard, card: DatasetCard, view: ClassView) -> str:
    """Return why a fit says nothing of a dataset's logits; empty where it does.

    Parameters
    ----------
    fit
        The fit.
    fitted_on, card
        Of the set it was fitted on, and of the other.
    view
        Which columns of the other's logits compete.
    """
    where = f"vector scaling was fitted on {fitted_on.id}"
    if view.n_columns != fit.scale.size or card.class_space != fitted_on.class_space:
        return f"{where}, whose classes are others than those of {card.id}"
    unknown = view.columns
    unknown = unknown[~np.isfinite(fit.scale[unknown])]
    if unknown.size:
        return f"{where}, which leaves out class {int(unknown[0])} of {card.id}"
    return ""


VECTOR_AGGREGATE = "classwise_vector"
"""Name of the classwise error after vector scaling among a summary's aggregates."""


def without_vector(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the columns that do not depend on a fitted vector scaling."""
    return {name: values for name, values in columns.items() if not name.startswith("vector_")}
