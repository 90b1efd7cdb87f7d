"""Distinguishing two sets by a score: ROC and precision-recall numbers of OOD detection.

Every score is "higher = more in-distribution". Equal scores are one step: no number depends on the order of
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._checks import Floats
from analyze.metrics._rows import checked_weights
from analyze.metrics.spec import SCORE_PAIR, Evidence, Metric
from closerlook_common.errors import UserError

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


def auroc(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    id_weights: ArrayLike | None = None,
    ood_weights: ArrayLike | None = None,
) -> float:
    """Return the area under the ROC curve: P(id > ood) + P(id = ood) / 2. Higher is better.

    Source: Hanley and McNeil, Radiology 1982; for OOD detection Hendrycks and Gimpel, ICLR 2017.

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) scores, higher = more in-distribution.
    id_weights, ood_weights
        (n,) and (m,) sample weights of at least 0; each row weighs the same where they are None.

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
    if id_weights is not None or ood_weights is not None:
        _, hits, alarms = _steps(inside, outside, *_masses(inside, outside, id_weights, ood_weights))
        before = np.concatenate([[0.0], hits[:-1]])
        return float((np.diff(alarms, prepend=0.0) * (hits + before)).sum() / (2 * hits[-1] * alarms[-1]))
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
    id_weights: ArrayLike | None = None,
    ood_weights: ArrayLike | None = None,
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
    id_weights, ood_weights
        As for :func:`auroc`; for ``first`` alone.

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
    if id_weights is not None or ood_weights is not None:
        if threshold != "first":
            raise UserError("weights need threshold='first'")
        _, hits, alarms = _steps(high, low, *_weights_of_sides(high, low, id_weights, ood_weights, positive))
        # Sums of weights may end a hair below the share that they are.
        point = int(np.argmax(hits / hits[-1] >= wanted - 1e-12))
        return float(alarms[point] / alarms[-1])
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
    id_weights: ArrayLike | None = None,
    ood_weights: ArrayLike | None = None,
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
    id_weights, ood_weights
        As for :func:`auroc`.

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
    masses = _weights_of_sides(high, low, id_weights, ood_weights, positive)
    _, hits, alarms = _steps(high, low, *masses)
    precision = hits / (hits + alarms)
    gain = np.diff(hits, prepend=0) / hits[-1]
    if method == "trapezoid":
        precision = (precision + np.concatenate([[1.0], precision[:-1]])) / 2
    return float((gain * precision).sum())


Masses = tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]


def _masses(inside: Floats, outside: Floats, id_weights: ArrayLike | None, ood_weights: ArrayLike | None) -> Masses:
    """Return the weights of both sides; None for both where neither has weights."""
    if id_weights is None and ood_weights is None:
        return None, None
    found = []
    for scores, weights, name in ((inside, id_weights, "id"), (outside, ood_weights, "ood")):
        mass = np.ones(scores.size) if weights is None else weights
        found.append(checked_weights(mass, scores.size, f"{name}_weights", f"{name}_scores"))
    return found[0], found[1]


def _weights_of_sides(
    high: Floats, low: Floats, id_weights: ArrayLike | None, ood_weights: ArrayLike | None, positive: str
) -> Masses:
    """Return the weights of positives and of negatives."""
    if positive == "id":
        return _masses(high, low, id_weights, ood_weights)
    return _masses(low, high, id_weights, ood_weights)[::-1]


def _steps(
    high: Floats, low: Floats, high_mass: NDArray[Any] | None = None, low_mass: NDArray[Any] | None = None
) -> tuple[Floats, NDArray[Any], NDArray[Any]]:
    """Return distinct scores from the highest, with accepted positives and negatives at each, or their weights."""
    scores = np.concatenate([high, low])
    order = np.argsort(scores, kind="stable")[::-1]
    if high_mass is not None and low_mass is not None:
        mass = np.concatenate([high_mass, low_mass])
        order = order[mass[order] > 0]
        ordered = scores[order]
        ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        is_high = order < high.size
        return ordered[ends], np.cumsum(mass[order] * is_high)[ends], np.cumsum(mass[order] * ~is_high)[ends]
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


ROWS = (
    Metric(
        "auroc", "AUROC", "higher", "fraction", columns=SCORE_PAIR, function=auroc, headline=6, version=5,
        evidence=Evidence(
            "P(ID score > OOD score) + P(equal)/2", "Hendrycks and Gimpel, ICLR 2017",
            "all pairs; scikit-learn's roc_auc_score; torchmetrics",
        ),
    ),
    Metric(
        "fpr95_id", "FPR@95", "lower", "fraction", columns=SCORE_PAIR, function=partial(fpr_at_tpr, positive="id"),
        headline=7, version=5,
        evidence=Evidence(
            "FPR at the first threshold with TPR >= 0.95, ID positive", "Liang et al., ICLR 2018",
            "scikit-learn's roc_curve; pytorch-ood",
        ),
    ),
    Metric(
        "fpr95_ood", "FPR@95 (OOD positive)", "lower", "fraction", columns=SCORE_PAIR,
        function=partial(fpr_at_tpr, positive="ood"), headline=8, version=5,
        evidence=Evidence(
            "FPR at the first threshold with TPR >= 0.95, OOD positive", "OpenOOD (Yang et al., NeurIPS 2022)",
            "scikit-learn's roc_curve; pytorch-ood",
        ),
    ),
    Metric(
        "aupr_in", "AUPR-in", "higher", "fraction", columns=SCORE_PAIR, function=partial(aupr, positive="id"),
        version=5,
        evidence=Evidence(
            "sum_t (R_t - R_{t-1}) P_t, ID positive", "Hendrycks and Gimpel, ICLR 2017",
            "scikit-learn's average_precision_score",
        ),
    ),
    Metric(
        "aupr_out", "AUPR-out", "higher", "fraction", columns=SCORE_PAIR, function=partial(aupr, positive="ood"),
        version=5,
        evidence=Evidence(
            "sum_t (R_t - R_{t-1}) P_t, OOD positive", "Hendrycks and Gimpel, ICLR 2017",
            "scikit-learn's average_precision_score",
        ),
    ),
)  # fmt: skip
