"""Top-label histogram binning: the share of right predictions by predicted class and bin of confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.calibrators.confidence_maps import HistogramBinning, checked_confidences, checked_fit_columns
from analyze.metrics import _checks
from analyze.metrics.binning import bin_numbers, mass_edges

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TopLabelBinning:
    """A histogram for each predicted class.

    Attributes
    ----------
    by_class
        Predicted class -> its histogram.
    others
        Histogram of all rows, for predicted classes with too few of their own.
    """

    by_class: Mapping[int, HistogramBinning]
    others: HistogramBinning

    def apply(self, confidences: ArrayLike, predictions: ArrayLike) -> Floats:
        """Return the share right of each row's predicted class and bin, (n,) in [0, 1]."""
        c = checked_confidences(confidences)
        predicted = _predictions(predictions, c.size)
        found = self.others.apply(c)
        for label in np.unique(predicted).tolist():
            own = self.by_class.get(label)
            if own is not None:
                rows = predicted == label
                found[rows] = own.apply(c[rows])
        return found


def fit_top_label(
    confidences: ArrayLike, correct: ArrayLike, predictions: ArrayLike, *, rows_per_bin: int = 50
) -> TopLabelBinning:
    """Fit top-label histogram binning with bins of equal mass.

    Parameters
    ----------
    confidences
        (n,) in [0, 1].
    correct
        (n,) whether the prediction was right.
    predictions
        (n,) predicted class numbers.
    rows_per_bin
        About how many rows a bin holds; a predicted class of fewer has the bins of all rows.

    Raises
    ------
    UserError
        For NaN or confidences outside [0, 1] (the row is named), predictions that are not integers, no rows, lengths
        that differ.

    References
    ----------
    Gupta and Ramdas, "Top-label calibration and multiclass-to-binary reductions", ICLR 2022. They leave the confidence
    of rare classes as it is.
    """
    c, right = checked_fit_columns(confidences, correct)
    predicted = _predictions(predictions, c.size)
    rows_per_bin = _checks.whole_number("rows_per_bin", rows_per_bin)
    labels, counts = np.unique(predicted, return_counts=True)
    by_class = {
        int(label): _histogram(c[predicted == label], right[predicted == label], int(count) // rows_per_bin)
        for label, count in zip(labels, counts, strict=True)
        if count >= rows_per_bin
    }
    return TopLabelBinning(by_class, _histogram(c, right, max(1, c.size // rows_per_bin)))


def _histogram(c: Floats, right: NDArray[np.bool_], n_bins: int) -> HistogramBinning:
    edges = mass_edges(c, n_bins)
    place = bin_numbers(c, edges)
    counts = np.bincount(place, minlength=edges.size - 1)
    hits = np.bincount(place, weights=right, minlength=edges.size - 1)
    # Equal confidences may leave a bin without rows.
    middle = (edges[:-1] + edges[1:]) / 2
    return HistogramBinning(edges, np.where(counts > 0, hits / np.maximum(counts, 1), middle))


def _predictions(values: ArrayLike, n: int) -> NDArray[np.integer]:
    predicted = _checks.whole_numbers("predictions", values)
    _checks.same_length("confidences", n, "predictions", predicted.size)
    return predicted
