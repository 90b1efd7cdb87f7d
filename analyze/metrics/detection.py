"""Telling two sets apart by a score: ROC and precision-recall numbers of OOD detection.

Every score is "higher = more in-distribution". Equal scores are one step: no number depends on the order of
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._checks import Floats

Positive = Literal["id", "ood"]


def _two(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[Floats, Floats]:
    inside, outside = _checks.vector("id_scores", id_scores), _checks.vector("ood_scores", ood_scores)
    kind = np.result_type(inside, outside)
    return inside.astype(kind, copy=False), outside.astype(kind, copy=False)


def _sides(id_scores: ArrayLike, ood_scores: ArrayLike, positive: str) -> tuple[Floats, Floats]:
    """Return scores of positives and of negatives such that higher means more positive."""
    inside, outside = _two(id_scores, ood_scores)
    _checks.choice("positive", positive, ("id", "ood"))
    return (inside, outside) if positive == "id" else (-outside, -inside)


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Return the area under the ROC curve: P(id > ood) + P(id = ood) / 2. Higher is better.

    Source: Hanley and McNeil, Radiology 1982; for OOD detection Hendrycks and Gimpel, ICLR 2017.

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) scores, higher = more in-distribution.

    Returns
    -------
    float
        In [0, 1]; 0.5 is chance. The same whichever side is called positive. Exact: pairs are counted, not
        integrated.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), or an empty side.

    Examples
    --------
    >>> auroc([3.0, 2.0], [2.0, 1.0])
    0.875
    """
    inside, outside = _two(id_scores, ood_scores)
    ordered, queries = np.sort(inside), np.sort(outside)
    below_or_equal = int(np.searchsorted(ordered, queries, side="right").sum())
    below = int(np.searchsorted(ordered, queries, side="left").sum())
    pairs = inside.size * outside.size
    return (2 * pairs - below_or_equal - below) / (2 * pairs)


def fpr_at_tpr(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    tpr: float = 0.95,
    positive: Positive = "id",
    threshold: Literal["first", "nearest"] = "first",
) -> float:
    """Return the false-positive rate at a true-positive rate (FPR95 for 0.95). Lower is better.

    Source: Liang, Li and Srikant (ODIN), ICLR 2018, for ``positive="id"``.

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) scores, higher = more in-distribution.
    tpr
        The true-positive rate to reach, in (0, 1].
    positive
        Which side is the positive one; the two numbers differ. ``id``: share of OOD rows accepted where 95
        % of ID rows are (ODIN, energy, MCM, GEN, ViM). ``ood``: share of ID rows flagged where 95 % of OOD
        rows are (OpenOOD 1.5, pytorch-ood, torch-uncertainty).
    threshold
        ``first``: the first ROC point with TPR >= ``tpr``, equal scores together. ``nearest``, as the MCM
        code and its line have it: the TPR nearest to ``tpr``, perhaps below it, of two equally near the
        higher; and among the points of that TPR the last one before it rises.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    UserError
        For NaN or inf (the row is named), or an empty side.

    Examples
    --------
    >>> fpr_at_tpr([4.0, 3.0, 2.0, 1.0], [2.5, 0.5, 0.0], tpr=0.75)
    0.3333333333333333
    """
    wanted = _checks.fraction("tpr", tpr)
    _checks.choice("threshold", threshold, ("first", "nearest"))
    high, low = _sides(id_scores, ood_scores, positive)
    n = high.size
    ordered = np.sort(high)
    # TPR where the k-th highest positive is the last one accepted, with all its equals.
    rates = np.arange(1, n + 1) / n
    k = int(np.searchsorted(rates, wanted, side="left"))
    cut = ordered[n - 1 - k]
    if threshold == "nearest":
        values = np.unique(ordered)  # rising, so that the first of equally near ones has the highest TPR
        accepted = n - np.searchsorted(ordered, values, side="left")
        place = int(np.argmin(np.abs(accepted / n - wanted)))
        if place > 0:
            return int(np.count_nonzero(low > values[place - 1])) / low.size
        cut = values[0]
    return int(np.count_nonzero(low >= cut)) / low.size


def aupr(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    positive: Positive = "id",
    method: Literal["average_precision", "trapezoid"] = "average_precision",
) -> float:
    """Return the area under the precision-recall curve. Higher is better; chance is the share of positives.

    Source: Davis and Goadrich, ICML 2006; for OOD detection Hendrycks and Gimpel, ICLR 2017.

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) scores, higher = more in-distribution.
    positive
        ``id`` (AUPR-in) or ``ood`` (AUPR-out).
    method
        ``average_precision``: sum of precision x gain in recall over tie groups (scikit-learn,
        torchmetrics, MCM). ``trapezoid``: linear between points, which is too hopeful but used by OpenOOD
        and pytorch-ood; the curve starts at recall 0 with precision 1.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    UserError
        For NaN or inf (the row is named), or an empty side.

    Examples
    --------
    >>> aupr([3.0, 1.0], [2.0])
    0.8333333333333333
    """
    _checks.choice("method", method, ("average_precision", "trapezoid"))
    high, low = _sides(id_scores, ood_scores, positive)
    _, hits, alarms = _steps(high, low)
    precision = hits / (hits + alarms)
    gain = np.diff(hits, prepend=0) / high.size
    if method == "trapezoid":
        precision = (precision + np.concatenate([[1.0], precision[:-1]])) / 2
    return float((gain * precision).sum())


def _steps(high: Floats, low: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct scores from the highest, with accepted positives and negatives at each."""
    scores = np.concatenate([high, low])
    order = np.argsort(scores, kind="stable")[::-1]
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(order < high.size, dtype=np.int64)[ends]
    return ordered[ends], hits, ends + 1 - hits


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve, from "nothing is positive" to "all is".

    Attributes
    ----------
    thresholds
        (k,) score at and above which a row is accepted (for ``positive="ood"``: at and below); the first
        accepts none.
    fpr, tpr
        (k,) rates; one point per distinct score, none dropped.
    """

    thresholds: NDArray[np.float64]
    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


def roc_curve(id_scores: ArrayLike, ood_scores: ArrayLike, *, positive: Positive = "id") -> RocCurve:
    """Return the ROC curve with one point per distinct score; parameters as for :func:`fpr_at_tpr`."""
    high, low = _sides(id_scores, ood_scores, positive)
    values, hits, alarms = _steps(high, low)
    sign = 1.0 if positive == "id" else -1.0
    return RocCurve(
        thresholds=sign * np.concatenate([[np.inf], values.astype(np.float64)]),
        fpr=np.concatenate([[0.0], alarms / low.size]),
        tpr=np.concatenate([[0.0], hits / high.size]),
    )
