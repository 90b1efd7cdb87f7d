"""Accuracies: top-k, per class, worst class, and against several acceptable labels an image (ReaL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from cache_schema.errors import UserError

_BLOCK = 1 << 20


def top1_accuracy(correct: ArrayLike) -> float:
    """Return the share of right rows, in [0, 1]. Higher is better.

    Entries other than right and wrong are refused with the row named, and so are no rows. As scikit-learn's
    ``accuracy_score``.
    """
    right = _checks.correct(correct)
    return int(np.count_nonzero(right)) / right.size


def label_ranks(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the place of the label among the classes, (n,), 0 for the highest logit.

    Among equal logits the lower class number comes first, as ``argmax`` has it. Parameters and errors as for
    :func:`analyze.metrics.negative_log_likelihood`.
    """
    scores = _checks.matrix("logits", logits)
    n, n_classes = scores.shape
    classes = _checks.labels(labels, n_classes, n, other="logits")
    ranks = np.empty(n, np.int64)
    columns = np.arange(n_classes)
    rows = max(1, _BLOCK // n_classes)
    for start in range(0, n, rows):
        block, own = scores[start : start + rows], classes[start : start + rows, None]
        value = np.take_along_axis(block, own, axis=1)
        ahead = (block > value) | ((block == value) & (columns < own))
        ranks[start : start + rows] = ahead.sum(axis=1)
    return ranks


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, *, k: int = 5) -> float:
    """Return the share of rows whose label is among the k highest logits. Higher is better; in [0, 1].

    Source: Russakovsky et al., IJCV 2015 (ImageNet's top-5).

    Parameters
    ----------
    logits
        (n, C) logits, log-probabilities or probabilities: only their order counts.
    labels
        (n,) class numbers 0 ... C - 1.
    k
        1 for top-1. Among equal logits the lower class number comes first, so k labels are named, never more.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), labels that are no class, no rows, lengths that differ.

    Examples
    --------
    >>> top_k_accuracy([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], [1, 0], k=2)
    0.5
    """
    k = _checks.whole_number("k", k)
    ranks = label_ranks(logits, labels)
    return int(np.count_nonzero(ranks < k)) / ranks.size


@dataclass(frozen=True)
class PerClassAccuracy:
    """Accuracy of each class.

    Attributes
    ----------
    counts
        (C,) images of each class, int64.
    accuracy
        (C,) share of them that was right; NaN for a class without images.
    """

    counts: NDArray[np.int64]
    accuracy: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean over the classes that have images: every class counts the same. Higher is better."""
        return float(self.accuracy[self.counts > 0].mean())

    @property
    def worst(self) -> float:
        """Lowest accuracy of a class that has images. Higher is better."""
        return float(self.accuracy[self.counts > 0].min())

    @property
    def worst_class(self) -> int:
        """Number of the class of lowest accuracy; the first of several."""
        return int(np.nanargmin(self.accuracy))


def per_class_accuracy(correct: ArrayLike, labels: ArrayLike, *, n_classes: int) -> PerClassAccuracy:
    """Return the accuracy of each class.

    Parameters
    ----------
    correct
        (n,) whether the prediction was right.
    labels
        (n,) class numbers 0 ... ``n_classes`` - 1.
    n_classes
        Number of classes, whether or not each occurs.
    """
    right = _checks.correct(correct)
    n_classes = _checks.whole_number("n_classes", n_classes)
    classes = _checks.labels(labels, n_classes, right.size, other="correct")
    counts = np.bincount(classes, minlength=n_classes).astype(np.int64)
    hits = np.bincount(classes[right], minlength=n_classes)
    held = counts > 0
    rates = np.full(n_classes, np.nan)
    rates[held] = hits[held] / counts[held]
    return PerClassAccuracy(counts, rates)


def mean_per_class_accuracy(correct: ArrayLike, labels: ArrayLike, *, n_classes: int) -> float:
    """Return the mean of the accuracies of classes that have images. Higher is better; in [0, 1]."""
    return per_class_accuracy(correct, labels, n_classes=n_classes).mean


def worst_class_accuracy(correct: ArrayLike, labels: ArrayLike, *, n_classes: int) -> float:
    """Return the lowest accuracy of any class that has images. Higher is better; in [0, 1]."""
    return per_class_accuracy(correct, labels, n_classes=n_classes).worst


def multi_label_accuracy(predictions: ArrayLike, acceptable: Sequence[Sequence[int]]) -> float:
    """Return the share of images whose prediction is among their acceptable labels (ReaL). Higher is better.

    Parameters
    ----------
    predictions
        (n,) predicted class numbers.
    acceptable
        n lists of class numbers. Images with an empty list are left out, as in Beyer et al. 2020, "Are we
        done with ImageNet?".

    Raises
    ------
    UserError
        For lengths that differ, or where every list is empty.
    """
    predicted = np.asarray(predictions)
    if predicted.ndim != 1 or predicted.dtype.kind not in "iu":
        raise UserError(f"predictions must be class numbers, (n,); got {predicted.dtype} {predicted.shape}")
    _checks.same_length("predictions", predicted.size, "acceptable", len(acceptable))
    hits = [int(p) in set(labels) for p, labels in zip(predicted, acceptable, strict=True) if len(labels)]
    if not hits:
        raise UserError("no image has an acceptable label: accuracy is undefined")
    return sum(hits) / len(hits)
