"""Vector scaling as a fit: the columns after the fitted scale and bias of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.vector_scaling import VectorFit, fit_vector_scaling_store
from analyze.fits.base import Fit
from analyze.fits.moved import MovedLogits, fit_facts
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard

PREFIX = "vector_"


@dataclass(frozen=True, eq=False)
class FittedVector(MovedLogits):
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
    name = "vector"
    aggregate: ClassVar[str] = "classwise_vector"
    prefix: ClassVar[str] = PREFIX
    title: ClassVar[str] = "vector scaling"

    @property
    def known(self) -> NDArray[np.bool_]:
        """Columns that have a scale, (C,)."""
        return np.isfinite(self.solution.scale)

    def move(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scale * logits + bias."""
        return self.solution.apply(logits)

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return what the fit found; every scale and bias only for the set that it was fitted on."""
        fit = self.solution
        used = np.isfinite(fit.scale)
        given: dict[str, Any] = {
            **fit_facts(self.card, fit),
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
    moves = True
    absent = "the summary holds no vector scaling: compute it from the big stores"

    def fit(self, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1) -> FittedVector:
        """Fit scales and biases on labelled rows of a store."""
        return FittedVector(fit_vector_scaling_store(source, rows, threads=threads), source.dataset)
