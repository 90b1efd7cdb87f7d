"""Accuracies: top-k, per class, worst class, and against several acceptable labels an image (ReaL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._rows import checked_weights, counted, labels_and_ignored
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError

_BLOCK = 1 << 20


def top1_accuracy(correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Return the share of right rows, in [0, 1]. Higher is better.

    Entries other than right and wrong are refused with the row named, and so are no rows. As scikit-learn's
    ``accuracy_score``, also with ``weights``, (n,) sample weights.
    """
    right = _checks.correct(correct)
    if weights is None:
        return int(np.count_nonzero(right)) / right.size
    mass = checked_weights(weights, right.size, other="correct")
    return float(mass[right].sum() / mass.sum())


def label_ranks(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the place of the label among the classes, (n,), 0 for the highest logit.

    Among equal logits the lower class number comes first, as ``argmax`` has it. Parameters and errors as for
    :func:`analyze.metrics.negative_log_likelihood`.
    """
    scores = _checks.logits(logits)
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


def top_k_accuracy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 5,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
) -> float:
    """Return the share of rows whose label is among the k highest logits. Higher is better; in [0, 1].

    Source: Russakovsky et al., IJCV 2015 (ImageNet's top-5).

    Parameters
    ----------
    logits
        (n, C) logits, log-probabilities or probabilities: only their order counts. -inf is a class that cannot win.
    labels
        (n,) class numbers 0 ... C - 1.
    k
        1 for top-1. Among equal logits the lower class number comes first, so k labels are named, never more.
    weights
        (n,) sample weights of at least 0; each row weighs the same when None.
    ignore_index
        Rows of this label are left out; none when None.

    Raises
    ------
    UserError
        For NaN or +inf (the row is named), labels that are not a class, no rows, lengths that differ.

    Examples
    --------
    >>> top_k_accuracy([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], [1, 0], k=2)
    0.5
    """
    k = _checks.whole_number("k", k)
    scores = _checks.logits(logits)
    classes, ignored = labels_and_ignored(labels, ignore_index, scores.shape[1], len(scores), other="logits")
    keep, mass = counted(len(scores), weights, ignored, other="logits")
    found = label_ranks(scores, classes) < k
    return top1_accuracy(found if keep is None else found[keep], weights=mass)


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


def per_class_accuracy(
    correct: ArrayLike, labels: ArrayLike, *, n_classes: int, ignore_index: int | None = None
) -> PerClassAccuracy:
    """Return the accuracy of each class.

    Parameters
    ----------
    correct
        (n,) whether the prediction was right.
    labels
        (n,) class numbers 0 ... ``n_classes`` - 1.
    n_classes
        Number of classes, whether or not each occurs.
    ignore_index
        Rows of this label are left out; none when None.
    """
    right = _checks.correct(correct)
    n_classes = _checks.whole_number("n_classes", n_classes)
    classes, ignored = labels_and_ignored(labels, ignore_index, n_classes, right.size, other="correct")
    keep, _ = counted(right.size, None, ignored)
    if keep is not None:
        right, classes = right[keep], classes[keep]
    counts = np.bincount(classes, minlength=n_classes).astype(np.int64)
    hits = np.bincount(classes[right], minlength=n_classes)
    held = counts > 0
    rates = np.full(n_classes, np.nan)
    rates[held] = hits[held] / counts[held]
    return PerClassAccuracy(counts, rates)


def mean_per_class_accuracy(
    correct: ArrayLike, labels: ArrayLike, *, n_classes: int, ignore_index: int | None = None
) -> float:
    """Return the mean of the accuracies of classes that have images. Higher is better; in [0, 1]."""
    return per_class_accuracy(correct, labels, n_classes=n_classes, ignore_index=ignore_index).mean


def worst_class_accuracy(
    correct: ArrayLike, labels: ArrayLike, *, n_classes: int, ignore_index: int | None = None
) -> float:
    """Return the lowest accuracy of any class that has images. Higher is better; in [0, 1]."""
    return per_class_accuracy(correct, labels, n_classes=n_classes, ignore_index=ignore_index).worst


def worst_classes_accuracy(
    correct: ArrayLike,
    labels: ArrayLike,
    *,
    n_classes: int,
    k: int = 10,
    least: int = 1,
    ignore_index: int | None = None,
) -> float:
    """Return the mean accuracy of the k classes of lowest accuracy. Higher is better; in [0, 1].

    Chosen by the same images, it is lower than what these classes would score on new images: more so for few images a
    class. Compare models on the same images only. Source: the worst-k classes of ImageNet-X (Idrissi et al., 2022).

    Parameters
    ----------
    correct, labels, n_classes, ignore_index
        As for `per_class_accuracy`.
    k
        Classes; of fewer than that all are taken.
    least
        Classes of fewer images are no candidates.

    Raises
    ------
    UserError
        As for `per_class_accuracy`; where no class has ``least`` images.

    Examples
    --------
    >>> worst_classes_accuracy([1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2], n_classes=3, k=2)
    0.25
    """
    k, least = _checks.whole_number("k", k), _checks.whole_number("least", least)
    found = per_class_accuracy(correct, labels, n_classes=n_classes, ignore_index=ignore_index)
    shares = np.sort(found.accuracy[found.counts >= least])[:k]
    if not shares.size:
        raise UserError(f"least: no class has {least} images")
    return float(shares.mean())


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
    predicted = _checks.whole_numbers("predictions", predictions)
    _checks.same_length("predictions", predicted.size, "acceptable", len(acceptable))
    hits = [int(p) in set(labels) for p, labels in zip(predicted, acceptable, strict=True) if len(labels)]
    if not hits:
        raise UserError("no image has an acceptable label: accuracy is undefined")
    return sum(hits) / len(hits)


ROWS = (
    Metric(
        "top1", "Top-1 accuracy", "higher", "share", columns=("correct",), function=top1_accuracy, headline=1,
        version=6,
        evidence=Evidence(
            "mean_i [argmax z_i = y_i]", "Russakovsky et al., IJCV 2015", "numpy; scikit-learn's accuracy_score",
            "test_metrics_weights.py::test_weights_as_scikit_learn_has_them",
        ),
    ),
    Metric(
        "top5", "Top-5 accuracy", "higher", "share", columns=("logits", "labels"), function=top_k_accuracy,
        headline=2, version=6,
        evidence=Evidence(
            "mean_i [y_i is among the 5 largest of z_i]", "Russakovsky et al., IJCV 2015",
            "sorted rows; scikit-learn's top_k_accuracy_score",
            "test_metrics_scores.py::test_top_k_equals_scikit_learn",
        ),
    ),
    Metric(
        "mean_class_accuracy", "Mean per-class accuracy", "higher", "share", version=6,
        evidence=Evidence(
            "mean over classes with images of their accuracy a_c", "Russakovsky et al., IJCV 2015",
            "scikit-learn's balanced_accuracy_score",
            "test_metrics_scores.py::test_class_accuracies_equal_scikit_learn",
        ),
    ),
    Metric(
        "worst_class_accuracy", "Worst-class accuracy", "higher", "share", version=6,
        evidence=Evidence(
            "min_c a_c over classes with images", "Idrissi et al., ICLR 2023 (ImageNet-X)",
            "scikit-learn's recall_score by class",
            "test_metrics_scores.py::test_class_accuracies_equal_scikit_learn",
        ),
    ),
    Metric(
        "worst_classes_accuracy{}", "Accuracy on the {} worst classes", "higher", "share",
        evidence=Evidence(
            "mean of the k smallest a_c", "Idrissi et al., ICLR 2023 (ImageNet-X)", "sorted class accuracies",
            "test_metrics_more.py::test_the_worst_classes_by_sorting",
        ),
    ),
    Metric(
        "worst_class", "Index of the worst class", "none", "index", high=INFINITY, footnote=True, version=6,
        evidence=Evidence(
            "argmin_c a_c; the first of several", "Idrissi et al., ICLR 2023 (ImageNet-X)",
            "a cache whose worst class is known", "test_evaluate.py::test_the_worst_class_is_a_number_of_its_own",
        ),
    ),
    Metric(
        "multi_label_accuracy", "ReaL accuracy", "higher", "share", version=6,
        evidence=Evidence(
            "mean_i [argmax z_i is in the label set of i]", "Beyer et al., 2020 (ReaL)",
            "the definition, image by image",
            "test_metrics_scores.py::test_real_labels_leave_out_images_without_any",
        ),
    ),
    Metric(
        "invalid_images", "Unreadable images", "lower", "count", high=INFINITY, footnote=True, version=6,
        evidence=Evidence(
            "number of rows whose image could not be read", "this project",
            "a store with a known number of such rows", "test_metric_rows.py::test_invalid_images_are_counted",
        ),
    ),
)  # fmt: skip
