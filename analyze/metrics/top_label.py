"""Top-label calibration: is the confidence right within each predicted class, not only over all of them together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analyze.metrics import _checks
from analyze.metrics.binning import bin_sums, edges_of
from analyze.metrics.calibration import Binning, Norm
from analyze.metrics.spec import Evidence, Metric


def top_label_calibration_error(
    confidences: ArrayLike,
    correct: ArrayLike,
    predictions: ArrayLike,
    *,
    n_bins: int = 15,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> float:
    """Return the calibration error within predicted classes. Lower is better; in [0, 1].

    Rows are divided by predicted class and then into bins of confidence; L1 is the sum over all these cells of their
    share of rows times the size of (mean confidence - accuracy). It is at least the ECE of the same bins, whose cells
    hold all classes. With few rows a cell it is biased upward far more than the ECE: compare it at equal n only.

    Parameters
    ----------
    confidences, correct, n_bins, norm
        As for :func:`analyze.metrics.expected_calibration_error`; ``max`` is the largest gap of a cell.
    predictions
        (n,) predicted class numbers.
    binning
        ``width``: the same bins for all classes. ``mass``: bins of nearly equal count within each predicted class.

    Raises
    ------
    UserError
        For NaN, inf or a confidence outside [0, 1] (the row is named), predictions that are not integers, no rows,
        lengths that differ.

    References
    ----------
    Gupta and Ramdas, "Top-label calibration and multiclass-to-binary reductions", ICLR 2022.

    Examples
    --------
    >>> round(top_label_calibration_error([0.7, 0.7, 0.7, 0.7], [1, 1, 0, 1], [0, 0, 1, 1]), 6)
    0.25
    """
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    predicted = _checks.whole_numbers("predictions", predictions)
    _checks.same_length("confidences", confidence.size, "predictions", predicted.size)
    n_bins = _checks.bins(n_bins)
    _checks.choice("binning", binning, ("width", "mass"))
    _checks.choice("norm", norm, ("l1", "l2", "max"))
    order = np.argsort(predicted, kind="stable")
    ordered = predicted[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    counts, gaps = [], []
    for rows in np.split(order, cuts):
        sums = bin_sums(confidence[rows], right[rows], edges_of(confidence[rows], n_bins, binning))
        held = sums.counts > 0
        counts.append(sums.counts[held])
        gaps.append(np.abs(sums.confidence[held] - sums.correct[held]) / sums.counts[held])
    gap, share = np.concatenate(gaps), np.concatenate(counts) / confidence.size
    if norm == "max":
        return float(gap.max())
    power = 1 if norm == "l1" else 2
    return float((share * gap**power).sum() ** (1 / power))


ROWS = (
    Metric(
        "top_label_ece", "ECE within predicted classes", "lower", "fraction",
        columns=("confidences", "correct", "predictions"), function=top_label_calibration_error,
        evidence=Evidence(
            "sum over predicted classes k and bins b of n_kb/n |c_kb - a_kb|", "Gupta and Ramdas, ICLR 2022",
            "the definition, class by class",
        ),
    ),
)  # fmt: skip
