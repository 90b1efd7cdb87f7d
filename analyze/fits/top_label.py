"""Top-label histogram binning as a fit: it needs the confidences and predictions of the ID set, not its logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.top_label import TopLabelBinning, fit_top_label
from analyze.fits.base import Columns, Fit, Fitted, Rows
from analyze.settings import Settings


@dataclass(frozen=True, eq=False)
class FittedTopLabel(Fitted):
    """A histogram of right and wrong for each predicted class."""

    mapping: TopLabelBinning
    name = "top-label"

    def columns(self, block: Mapping[str, NDArray[Any]]) -> Columns:
        """Return the column ``confidence``, mapped by ``prediction``: (m,) float64."""
        mapped = self.mapping.apply(block["confidence"].astype(np.float64), block["prediction"])
        return {f"{self.name}_confidence": mapped}


class TopLabelFit(Fit):
    """Top-label histogram binning (Gupta and Ramdas, 2022)."""

    name = "top-label"
    needs = "confidences"
    absent = "the rows it would be fitted on are not at hand"

    def fit(self, source: Any, rows: Rows, settings: Settings, threads: int = 1) -> FittedTopLabel:
        """Fit the histograms on some rows of the columns ``confidence``, ``correct`` and ``prediction``."""
        confidences = source["confidence"][rows].astype(np.float64)
        return FittedTopLabel(fit_top_label(confidences, source["correct"][rows], source["prediction"][rows]))
