"""Areas under risk-coverage curves besides AURC and AUGRC: balanced, achievable, and in excess of the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.selective import augrc, selective_columns, tie_groups
from analyze.metrics.spec import TOP_LABEL, Evidence, Metric


def e_augrc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return AUGRC less that of a perfect ranking, r^2 / 2 for error rate r. Lower is better; in [0, 0.25].

    It equals (1 - AUROC of correctness) a (1 - a) with accuracy a. Parameters and errors as for
    :func:`analyze.metrics.augrc`. Source: Traub et al., NeurIPS 2024.

    Examples
    --------
    >>> e_augrc([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    0.0625
    """
    confidence, right = selective_columns(confidences, correct)
    error = 1 - int(np.count_nonzero(right)) / right.size
    return max(augrc(confidence, right) - error**2 / 2, 0.0)


def achievable_aurc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the AURC of the best selection that thresholds of this confidence allow. Lower is better; in [0, 1].

    Of all points of the curve only those on the lower convex hull of (coverage, share of rows answered and wrong) are
    kept: between two of them a random choice of the two thresholds reaches every coverage with errors on the straight
    line. The area below risk = errors / coverage is exact along these lines, where :func:`analyze.metrics.aurc` takes
    straight lines of risk: on few rows either may be the larger. Parameters and errors as there.

    References
    ----------
    Traub et al., "Overcoming common flaws in the evaluation of selective classification systems", NeurIPS 2024; the
    same hull as that of the ROC curve of correctness (Fawcett, Pattern Recognition Letters 27, 2006).

    Examples
    --------
    >>> round(achievable_aurc([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1]), 6)
    0.096574
    """
    _, answered, errors = tie_groups(*selective_columns(confidences, correct))
    n = answered[-1]
    coverage, wrong = _lower_hull(answered / n, errors / n)
    before, below = coverage[:-1], wrong[:-1]
    after = coverage[1:]
    slope = np.diff(wrong) / np.diff(coverage)
    lift = below - slope * before  # of the line at coverage 0; 0 on the first piece, which starts there
    logs = np.log(after / np.where(before > 0, before, after))
    return float((slope * (after - before) + lift * logs).sum())


def _lower_hull(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of the lower convex hull of (0, 0) and points of rising x, from left to right."""
    hull: list[tuple[float, float]] = [(0.0, 0.0)]
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (point[0] - x0) < (point[1] - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append(point)
    corners = np.array(hull)
    return corners[:, 0], corners[:, 1]


def balanced_aurc(confidences: ArrayLike, correct: ArrayLike, labels: ArrayLike, *, n_classes: int) -> float:
    """Return the area under the curve of balanced risk over coverage. Lower is better; in [0, 1].

    Balanced risk is the mean over the classes that have images of the share of errors among the answered images of the
    class; a class of which none is answered counts 0.

    Parameters
    ----------
    confidences, correct
        As for :func:`analyze.metrics.aurc`.
    labels
        (n,) class numbers 0 ... ``n_classes`` - 1.
    n_classes
        Number of classes, whether or not each occurs.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), labels that are not a class, no rows, lengths that differ.

    References
    ----------
    Jaeger et al., "A call to reflect on evaluation practices for failure detection", ICLR 2023; the balanced form after
    Traub et al., NeurIPS 2024, with straight lines between points as in :func:`analyze.metrics.aurc`.
    """
    confidence, right = selective_columns(confidences, correct)
    classes = _classes(labels, n_classes, right.size)
    order = np.argsort(confidence, kind="stable")[::-1]
    ordered, wrong, own = confidence[order], ~right[order], classes[order]
    # Row by row one class changes its share of errors: from e/a to the next.
    by_class = np.argsort(own, kind="stable")
    starts = np.append(True, own[by_class][1:] != own[by_class][:-1])
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    answered = np.arange(own.size) - first + 1
    errors = np.cumsum(wrong[by_class], dtype=np.int64)
    share = (errors - errors[first] + wrong[by_class][first]) / answered
    change = np.empty(own.size)
    change[by_class] = np.where(starts, share, share - np.concatenate([[0.0], share[:-1]]))
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    # Rounding of many changes must not leave the range.
    risk = np.clip(np.cumsum(change)[ends] / np.count_nonzero(starts), 0.0, 1.0)
    coverage = np.concatenate([[0], ends + 1]) / own.size
    return float((np.diff(coverage) * (risk + np.concatenate([risk[:1], risk[:-1]]))).sum() / 2)


def balanced_augrc(confidences: ArrayLike, correct: ArrayLike, labels: ArrayLike, *, n_classes: int) -> float:
    """Return AUGRC with errors weighted so that each class has one total. Lower is better; in [0, 1].

    An error of a class of n_c among n images and K classes that occur weighs n / (K n_c); coverage is of images. With
    classes of equal size it is :func:`analyze.metrics.augrc`. Parameters, errors and source as for `balanced_aurc`.
    """
    confidence, right = selective_columns(confidences, correct)
    classes = _classes(labels, n_classes, right.size)
    counts = np.bincount(classes)
    weight = ~right / (np.count_nonzero(counts) * counts[classes])
    order = np.argsort(confidence, kind="stable")[::-1]
    ordered = confidence[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    joint = np.cumsum(weight[order])[ends]
    coverage = np.concatenate([[0], ends + 1]) / right.size
    return float((np.diff(coverage) * (joint + np.concatenate([[0.0], joint[:-1]]))).sum() / 2)


def _classes(labels: ArrayLike, n_classes: int, n: int) -> NDArray[np.int64]:
    return _checks.labels(labels, _checks.whole_number("n_classes", n_classes), n, other="confidences")


ROWS = (
    Metric(
        "e_augrc", "E-AUGRC", "lower", "fraction", high=0.25, columns=TOP_LABEL, function=e_augrc,
        evidence=Evidence(
            "AUGRC - r^2/2, r the error rate", "Traub et al., NeurIPS 2024",
            "the definition, threshold by threshold",
        ),
    ),
    Metric(
        "achievable_aurc", "AURC (achievable)", "lower", "fraction", columns=TOP_LABEL, function=achievable_aurc,
        evidence=Evidence(
            "area under the least risk that a mixture of two thresholds reaches at each coverage",
            "Traub et al., NeurIPS 2024; Fawcett 2006", "numerical integration over pairs of thresholds",
        ),
    ),
    Metric(
        "balanced_aurc", "AURC (balanced)", "lower", "fraction",
        evidence=Evidence(
            "area under (mean over classes of the share answered and wrong) over coverage",
            "Jaeger et al., ICLR 2023; Traub et al., NeurIPS 2024", "the definition, threshold by threshold",
            "test_metrics_more.py::test_balanced_areas_against_loops",
        ),
    ),
    Metric(
        "balanced_augrc", "AUGRC (balanced)", "lower", "fraction",
        evidence=Evidence(
            "AUGRC with errors of class c weighted by n / (K n_c)", "Traub et al., NeurIPS 2024",
            "the definition, threshold by threshold", "test_metrics_more.py::test_balanced_areas_against_loops",
        ),
    ),
)  # fmt: skip
