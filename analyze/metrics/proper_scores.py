"""Proper scoring rules: negative log-likelihood and Brier score, with the latter's decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analyze.metrics import _checks
from analyze.metrics._rows import counted, labels_and_ignored
from analyze.metrics.binning import bin_numbers, edges_of
from analyze.metrics.spec import INFINITY, PROBABILITY_ROWS, Evidence, Metric

_BLOCK = 1 << 20  # numbers widened to float64 at a time: memory stays flat however many rows there are


def negative_log_likelihood(
    logits: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None, ignore_index: int | None = None
) -> float:
    """Return the mean negative log-likelihood in nats: mean of lse(z) - z_label. Lower is better.

    Computed from logits in log space in float64, so that no probability is clipped and none underflows. Source: Good
    1952 (the logarithmic score).

    Parameters
    ----------
    logits
        (n, C) real numbers; log-probabilities give the same answer. -inf is a class of probability 0.
    labels
        (n,) class numbers 0 ... C - 1. Rows without a label (-1) must be left out, or ignored.
    weights
        (n,) sample weights of at least 0; each row weighs the same when None.
    ignore_index
        Rows of this label are left out; none when None.

    Returns
    -------
    float
        In [0, inf]; inf where a label has probability 0.

    Raises
    ------
    UserError
        For NaN or +inf (the row is named), labels that are not a class, no rows, lengths that differ.

    Examples
    --------
    >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 6)
    0.693147
    """
    scores = _checks.logits(logits)
    classes, ignored = labels_and_ignored(labels, ignore_index, scores.shape[1], len(scores), other="logits")
    keep, mass = counted(len(scores), weights, ignored, other="logits")
    if keep is not None:
        scores, classes = scores[keep], classes[keep]
    n, n_classes = scores.shape
    rows = max(1, _BLOCK // n_classes)
    total = 0.0
    for start in range(0, n, rows):
        block = scores[start : start + rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        own = np.take_along_axis(block, classes[start : start + rows, None], axis=1)[:, 0]
        each = np.log(np.exp(block).sum(axis=1)) - own
        total += float((each if mass is None else each * mass[start : start + rows]).sum())
    return float(total / (n if mass is None else mass.sum()))


def brier_score(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    scale: Literal["sum", "half", "mean"] = "sum",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
) -> float:
    """Return the mean of sum_c (p_c - [c is the label])^2, the Brier score. Lower is better.

    Parameters
    ----------
    probabilities
        (n, C) in [0, 1].
    labels
        (n,) class numbers 0 ... C - 1.
    scale
        ``sum`` (Brier 1950, range [0, 2], the default), ``half`` of it (range [0, 1], as for two classes), or
        ``mean`` over classes (divided by C).
    weights
        (n,) sample weights of at least 0; each row weighs the same when None.
    ignore_index
        Rows of this label are left out; none when None.

    Returns
    -------
    float
        In [0, 2] for ``sum``.

    Raises
    ------
    UserError
        For NaN, inf or numbers outside [0, 1] (the row is named), labels that are not a class, no rows, other
        lengths.

    Examples
    --------
    >>> round(brier_score([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 6)
    0.29
    """
    scores = _checks.probabilities(probabilities)
    classes, ignored = labels_and_ignored(labels, ignore_index, scores.shape[1], len(scores))
    _checks.choice("scale", scale, ("sum", "half", "mean"))
    keep, mass = counted(len(scores), weights, ignored, other="probabilities")
    if keep is not None:
        scores, classes = scores[keep], classes[keep]
    n, n_classes = scores.shape
    rows = max(1, _BLOCK // n_classes)
    total = 0.0
    for start in range(0, n, rows):
        block = scores[start : start + rows].astype(np.float64)
        own = np.take_along_axis(block, classes[start : start + rows, None], axis=1)[:, 0]
        squares = np.einsum("nc,nc->n", block, block)
        each = squares - 2 * own + 1
        total += float((each if mass is None else each * mass[start : start + rows]).sum())
    # Rounding may leave -1e-16 where every row is sure and right.
    parts = {"sum": 1, "half": 2, "mean": n_classes}[scale]
    return float(max(total / (n if mass is None else mass.sum()), 0.0) / parts)


@dataclass(frozen=True)
class BrierDecomposition:
    """The top-1 Brier score taken apart: ``brier`` = reliability - resolution + uncertainty + within_bins.

    Attributes
    ----------
    brier
        Mean of (confidence - correct)^2.
    reliability
        Mean squared gap between a bin's confidence and its accuracy; lower is better.
    resolution
        Variance of the bins' accuracies around the overall one; higher is better.
    uncertainty
        accuracy (1 - accuracy): the score of always saying the overall accuracy.
    within_bins
        What bins hide: variance of confidence within bins less twice its covariance with correctness
        (Stephenson, Coelho and Jolliffe 2008). Zero where every bin holds one value only.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier_decomposition(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    n_bins: int = 15,
    binning: Literal["width", "mass"] = "width",
) -> BrierDecomposition:
    """Return Murphy's decomposition of the top-1 Brier score, exact for any binning.

    Options as for :func:`analyze.metrics.expected_calibration_error`. Source: Murphy 1973; the term within
    bins after Stephenson et al. 2008.
    """
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    n_bins = _checks.bins(n_bins)
    _checks.choice("binning", binning, ("width", "mass"))
    forecast, outcome = confidence.astype(np.float64), right.astype(np.float64)
    n = forecast.size
    edges = edges_of(confidence, n_bins, binning)
    numbers = bin_numbers(confidence, edges)
    counts = np.bincount(numbers, minlength=edges.size - 1)
    held = np.maximum(counts, 1)
    mean = np.bincount(numbers, forecast, counts.size) / held
    rate = np.bincount(numbers, outcome, counts.size) / held
    base = float(outcome.mean())
    away = forecast - mean[numbers]
    return BrierDecomposition(
        brier=float(((forecast - outcome) ** 2).mean()),
        reliability=float((counts * (mean - rate) ** 2).sum() / n),
        resolution=float((counts * (rate - base) ** 2).sum() / n),
        uncertainty=base * (1 - base),
        within_bins=float((away * (away - 2 * (outcome - rate[numbers]))).mean()),
    )


ROWS = (
    Metric(
        "nll", "NLL", "lower", high=INFINITY, columns=("logits", "labels"), function=negative_log_likelihood,
        headline=4, version=7,
        evidence=Evidence("mean_i (lse(z_i) - z_iy)", "Good 1952", "scipy's log_softmax; scikit-learn's log_loss"),
    ),
    Metric(
        "brier", "Brier score", "lower", high=2.0, columns=PROBABILITY_ROWS, function=brier_score, headline=5,
        version=7,
        evidence=Evidence(
            "mean_i sum_c (p_ic - [c = y_i])^2", "Brier 1950",
            "the definition, class by class; scikit-learn's brier_score_loss",
        ),
    ),
)  # fmt: skip
