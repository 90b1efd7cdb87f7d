"""Calibrators of the confidence as fits: they need the confidences of the ID set, not its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.by_name import CONFIDENCE_MAPS
from analyze.calibrators.confidence_maps import ConfidenceMap, fit_histogram
from analyze.fits.base import Columns, Fit, Fitted, Rows
from analyze.settings import Settings

Fitter = Callable[[NDArray[np.float64], NDArray[np.bool_], Mapping[str, Any]], ConfidenceMap]


@dataclass(frozen=True, eq=False)
class FittedMap(Fitted):
    """A fitted map from confidence to probability of being right."""

    name: str
    mapping: ConfidenceMap

    def columns(self, block: Mapping[str, NDArray[Any]]) -> Columns:
        """Return the column ``confidence``, mapped: (m,) float64."""
        return {f"{self.name}_confidence": self.mapping.apply(block["confidence"].astype(np.float64))}


class ConfidenceMapFit(Fit):
    """A calibrator of the confidence.

    Parameters
    ----------
    name
        In ``[calibrators] methods``.
    fitter
        Confidences (n,), whether each was right (n,) and the options of ``[calibrators]`` -> a map.
    option_names
        Options of ``[calibrators]`` that the fitter reads.
    """

    needs = "confidences"
    absent = "the rows it would be fitted on are not at hand"

    def __init__(self, name: str, fitter: Fitter, option_names: tuple[str, ...] = ()) -> None:
        self.name = name
        self._fitter, self._option_names = fitter, option_names

    def fit(self, source: Any, rows: Rows, settings: Settings, threads: int = 1) -> FittedMap:
        """Fit the map on some rows of the columns ``confidence`` and ``correct``."""
        confidences = source["confidence"][rows].astype(np.float64)
        return FittedMap(self.name, self._fitter(confidences, source["correct"][rows], settings["calibrators"]))

    def options(self, settings: Settings, dataset: str) -> dict[str, Any]:
        """Return the split's options and those that the map is fitted with."""
        own = settings.changed("calibrators", *self._option_names) if self._option_names else {}
        return {**settings.changed("split"), **own}


def _fitter(name: str) -> Fitter:
    fit = CONFIDENCE_MAPS[name]
    return lambda confidences, correct, _: fit(confidences, correct)


def map_fits() -> Iterator[ConfidenceMapFit]:
    """Yield a fit for every calibrator of the confidence that is known by name."""
    for name in CONFIDENCE_MAPS:
        if name == "histogram":
            yield ConfidenceMapFit(
                name, lambda c, r, o: fit_histogram(c, r, n_bins=o["histogram_bins"]), ("histogram_bins",)
            )
        else:
            yield ConfidenceMapFit(name, _fitter(name))
