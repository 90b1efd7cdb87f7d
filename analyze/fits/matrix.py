"""Matrix scaling and Dirichlet calibration as fits: the columns after the fitted linear map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.matrix_scaling import MatrixFit, fit_matrix_store
from analyze.fits.base import Fit
from analyze.fits.moved import MovedLogits, fit_facts
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard

PENALTIES = {"matrix_off_diagonal": "off_diagonal", "matrix_bias": "bias"}
"""Option of ``[calibrators]`` -> argument of the fit."""


@dataclass(frozen=True, eq=False)
class FittedMatrix(MovedLogits):
    """A linear map of the logits, or log-probabilities, of the classes that compete on the ID set.

    Attributes
    ----------
    solution, classes
        The map, and the columns of the logits that it is of.
    card
        Of the ID set that it was fitted on.
    n_columns
        Width of the logits.
    penalties
        By the names of their options.
    """

    solution: MatrixFit
    classes: NDArray[np.int64]
    card: DatasetCard
    n_columns: int
    penalties: Mapping[str, float] = field(default_factory=dict)
    name = "matrix"
    aggregate: ClassVar[str] = "classwise_matrix"
    prefix: ClassVar[str] = "matrix_"
    title: ClassVar[str] = "matrix scaling"

    @property
    def known(self) -> NDArray[np.bool_]:
        """Columns that the map is of, (C,)."""
        found = np.zeros(self.n_columns, np.bool_)
        found[self.classes] = True
        return found

    def move(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the map of the classes that it is of; NaN for the others."""
        moved = np.full(logits.shape, np.nan)
        moved[:, self.classes] = self.solution.move(logits[:, self.classes])
        return moved

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return what the fit found; not its C x C weights, which the digest names."""
        return {self.name: {**fit_facts(self.card, self.solution), "penalties": dict(self.penalties)}}


@dataclass(frozen=True, eq=False)
class FittedDirichlet(FittedMatrix):
    """A linear map of the log-probabilities of the classes that compete on the ID set."""

    name = "dirichlet"
    aggregate: ClassVar[str] = "classwise_dirichlet"
    prefix: ClassVar[str] = "dirichlet_"
    title: ClassVar[str] = "Dirichlet calibration"


class MatrixScaling(Fit):
    """A linear map of the logits with penalties, by minimal NLL."""

    name = "matrix"
    gives = (FittedMatrix.prefix,)
    fact = "matrix"
    aggregates = (FittedMatrix.aggregate,)
    roles = ("id", "shift")
    moves = True
    absent = "the summary holds no matrix scaling: compute it from the big stores"
    fitted: ClassVar[type[FittedMatrix]] = FittedMatrix

    def fit(self, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1) -> FittedMatrix:
        """Fit the map on labelled rows of a store."""
        given = {option: float(settings["calibrators"][option]) for option in PENALTIES}
        found, classes = fit_matrix_store(
            source,
            rows,
            dirichlet=self.name == "dirichlet",
            off_diagonal=given["matrix_off_diagonal"],
            bias=given["matrix_bias"],
        )
        return self.fitted(found, classes, source.dataset, source.n_classes, given)

    def options(self, settings: Settings, dataset: str) -> dict[str, Any]:
        """Return the split's options and the penalties."""
        return {**settings.changed("split"), **settings.changed("calibrators", *PENALTIES)}

    def made_otherwise(self, facts: Mapping[str, Any], settings: Settings) -> str:
        """Compare the penalties."""
        made = facts[self.fact]["penalties"]
        if made == {option: settings["calibrators"][option] for option in PENALTIES}:
            return ""
        return f"the summary's was fitted with other penalties, {made}: summarize again"


class DirichletCalibration(MatrixScaling):
    """A linear map of the log-probabilities with penalties, by minimal NLL."""

    name = "dirichlet"
    gives = (FittedDirichlet.prefix,)
    fact = "dirichlet"
    aggregates = (FittedDirichlet.aggregate,)
    absent = "the summary holds no Dirichlet calibration: compute it from the big stores"
    fitted: ClassVar[type[FittedMatrix]] = FittedDirichlet
