"""Temperature scaling as a fit: the columns at the fitted temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.temperature import TemperatureFit, fit_temperature_store
from analyze.fits.base import Columns, Fit, Fitted, LogitBlock
from analyze.kernels import statistics as kernels
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard

PREFIX = "scaled_"


@dataclass(frozen=True)
class FittedTemperature(Fitted):
    """A temperature; its columns come from the pass over the logits, which takes it along."""

    temperature: float
    solution: TemperatureFit | None = None
    bounds: tuple[float, float] | None = None
    name = "temperature"
    aggregate: ClassVar[str] = "classwise_scaled"

    def columns(self, block: LogitBlock) -> Columns:
        """Return confidence, label log-probability, sum of squares and entropy of softmax(logits / T)."""
        scaled = block.scaled[self.temperature]
        found = {
            f"{PREFIX}confidence": scaled[kernels.CONFIDENCE],
            f"{PREFIX}label_log_probability": scaled[kernels.LABEL_LOG_PROBABILITY],
            f"{PREFIX}sum_squares": scaled[kernels.SUM_SQUARES],
            f"{PREFIX}entropy": scaled[kernels.ENTROPY],
        }
        if self.temperature in block.ranks:
            return {**found, f"{PREFIX}label_rank": block.ranks[self.temperature]}
        return found

    def logits(self, block: LogitBlock) -> tuple[NDArray[Any], float]:
        """Return the block's own logits and T."""
        return block.logits, self.temperature

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return T, and how it was found (in ``split``)."""
        fit = self.solution
        if fit is None:
            return {"temperature": self.temperature}
        given: dict[str, Any] = {"n": fit.n, "nll_before": fit.nll_before, "nll_after": fit.nll_after}
        given["standard_error"] = fit.standard_error
        return {"temperature": self.temperature, "split": {**given, "bounds": list(self.bounds or ())}}


class TemperatureScaling(Fit):
    """One temperature for all classes, by minimal NLL."""

    name = "temperature"
    gives = (PREFIX,)
    fact = "temperature"
    aggregates = ("classwise_scaled",)
    absent = "the summary holds no temperature: compute it from the big stores"

    def fit(self, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1) -> FittedTemperature:
        """Fit T on labelled rows of a store."""
        low, high = settings["calibrators"]["bounds"]
        found = fit_temperature_store(source, rows, bounds=(low, high), threads=threads)
        return FittedTemperature(float(found.temperature), found, (low, high))

    def options(self, settings: Settings, dataset: str) -> dict[str, Any]:
        """Return the split's options and the bounds of T."""
        return {**settings.changed("split"), **settings.changed("calibrators", "bounds")}

    def made_otherwise(self, facts: Any, settings: Settings) -> str:
        """Compare the bounds."""
        bounds = facts.get("split", {}).get("bounds")
        if bounds is None or bounds == list(settings["calibrators"]["bounds"]):
            return ""
        return f"the summary's was fitted within other bounds, {bounds}: summarize again"
