"""Calibration of every class's probability, not of the predicted one alone."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analyze.metrics import _checks
from analyze.metrics._rows import counted, labels_and_ignored
from analyze.metrics.binning import bin_sums, mass_edges, width_edges
from analyze.metrics.spec import PROBABILITY_ROWS, Evidence, Metric
from closerlook_common.errors import UserError

_BLOCK = 1 << 20


def classwise_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    n_bins: int = 15,
    threshold: float = 0.0,
    reduce: Literal["mean", "sum"] = "mean",
    ignore_index: int | None = None,
) -> float:
    """Return the mean over classes of the ECE of each class's probability. Lower is better.

    Also called static or marginal calibration error. With 1,000 classes nearly all probabilities lie in the
    first bin, so the value is about 1,000 times smaller than a top-1 ECE; ``reduce="sum"`` or a threshold
    make it readable.

    Parameters
    ----------
    probabilities
        (n, C) in [0, 1].
    labels
        (n,) class numbers 0 ... C - 1.
    n_bins
        Equal-width bins (lo, hi]; 0 belongs to the first.
    threshold
        Only probabilities above it count; each class is then divided by the number of its own that are
        left, and the mean is over classes that have any.
    reduce
        ``mean`` over classes (the usual one) or their ``sum``.
    ignore_index
        Rows of this label are left out; none when None.

    Returns
    -------
    float
        In [0, 1] for the mean.

    Raises
    ------
    UserError
        For NaN, inf or numbers outside [0, 1] (the row is named), labels that are not a class, no rows,
        lengths that differ, or a threshold that nothing exceeds.

    References
    ----------
    Nixon et al., "Measuring calibration in deep learning", 2019; Kull et al., NeurIPS 2019.
    """
    scores = _checks.probabilities(probabilities)
    classes, ignored = labels_and_ignored(labels, ignore_index, scores.shape[1], len(scores))
    keep, _ = counted(len(scores), None, ignored)
    if keep is not None:
        scores, classes = scores[keep], classes[keep]
    n, n_classes = scores.shape
    n_bins = _checks.bins(n_bins)
    threshold = _checks.fraction("threshold", threshold)
    _checks.choice("reduce", reduce, ("mean", "sum"))
    inner = width_edges(n_bins)[1:-1]
    # Only the surplus (probability less outcome) of each class and bin matters. Most probabilities are
    # tiny, so what lies beyond the first bin is scattered, and the first bin is the column's total less the
    # rest.
    surplus = np.zeros((n_classes, n_bins))
    counts = np.zeros(n_classes, np.int64)
    first = max(inner[0] if n_bins > 1 else 1.0, threshold)
    rows = max(1, _BLOCK // n_classes)
    for start in range(0, n, rows):
        block = scores[start : start + rows]
        own = classes[start : start + rows]
        kept = block > threshold if threshold > 0 else None
        counts += block.shape[0] if kept is None else kept.sum(axis=0)
        total = block.sum(axis=0, dtype=np.float64, where=True if kept is None else kept)
        np.subtract.at(total, own if kept is None else own[kept[np.arange(own.size), own]], 1.0)
        row, column = np.nonzero(block > first)
        value = block[row, column].astype(np.float64)
        number = np.searchsorted(inner, value, side="left")
        gap = np.bincount(column * n_bins + number, value - (own[row] == column), n_classes * n_bins)
        beyond = gap.reshape(n_classes, n_bins)
        surplus += beyond
        low = 0 if threshold <= (inner[0] if n_bins > 1 else 1.0) else int(np.searchsorted(inner, threshold))
        surplus[:, low] += total - beyond.sum(axis=1)
    if not counts.any():
        raise UserError(f"no probability is above the threshold {threshold}")
    held = counts > 0
    errors = np.abs(surplus[held]).sum(axis=1) / counts[held]
    return float(errors.sum() if reduce == "sum" else errors.mean())


def adaptive_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    n_bins: int = 15,
    threshold: float = 0.0,
    ignore_index: int | None = None,
) -> float:
    """Return the mean over classes and equal-mass bins of abs(mean probability - frequency) (ACE, TACE).

    Every bin of a class counts the same, whatever its rows (Nixon et al. 2019); equal probabilities never
    part. With a ``threshold`` above zero only probabilities above it enter (TACE); the mean is over bins
    that hold rows. Lower is better; in [0, 1]. Parameters and errors as for
    :func:`classwise_calibration_error`.
    """
    scores = _checks.probabilities(probabilities)
    classes, ignored = labels_and_ignored(labels, ignore_index, scores.shape[1], len(scores))
    keep, _ = counted(len(scores), None, ignored)
    if keep is not None:
        scores, classes = scores[keep], classes[keep]
    n_classes = scores.shape[1]
    n_bins = _checks.bins(n_bins)
    threshold = _checks.fraction("threshold", threshold)
    total, bins = 0.0, 0
    for c in range(n_classes):
        column, own = scores[:, c], classes == c
        if threshold > 0:
            kept = column > threshold
            column, own = column[kept], own[kept]
            if column.size == 0:
                continue
        sums = bin_sums(column, own, mass_edges(column, n_bins))
        held = sums.counts > 0
        total += float((np.abs(sums.confidence[held] - sums.correct[held]) / sums.counts[held]).sum())
        bins += int(held.sum())
    if bins == 0:
        raise UserError(f"no probability is above the threshold {threshold}")
    return total / bins


_ace = adaptive_calibration_error

ROWS = (
    Metric(
        "classwise_ece", "Classwise ECE", "lower", "fraction", columns=PROBABILITY_ROWS,
        function=classwise_calibration_error, version=6,
        evidence=Evidence(
            "mean over classes of the ECE of p_ic against [y_i = c], 15 bins of equal width",
            "Nixon et al., 2019; Kull et al., NeurIPS 2019", "the definition, class by class",
        ),
    ),
    Metric(
        "ace", "Adaptive calibration error", "lower", "fraction", columns=PROBABILITY_ROWS, function=_ace,
        evidence=Evidence(
            "mean over classes and 15 equal-count bins of |mean p - frequency|", "Nixon et al., 2019",
            "the definition, class by class",
        ),
    ),
    Metric(
        "tace", "Thresholded adaptive calibration error", "lower", "fraction", columns=PROBABILITY_ROWS,
        function=partial(_ace, threshold=0.01),
        evidence=Evidence(
            "as ace, of probabilities above 0.01", "Nixon et al., 2019", "the definition, class by class",
        ),
    ),
)  # fmt: skip
