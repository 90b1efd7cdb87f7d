"""Parts and points of detection curves: partial AUROC, equal error rate, precision and recall by threshold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.detection import Positive, roc_curve
from analyze.metrics.spec import SCORE_PAIR, Evidence, Metric


def partial_auroc(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    max_fpr: float = 0.1,
    positive: Positive = "id",
    standardised: bool = True,
) -> float:
    """Return the area under the ROC curve up to a false-positive rate. Higher is better; in [0, 1].

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) scores, higher = more in-distribution.
    max_fpr
        Largest false-positive rate, in (0, 1]; 1 is the whole AUROC.
    positive
        Which side is the positive one; the two numbers differ.
    standardised
        Mapped so that chance is 0.5 and a perfect curve 1 (McClish 1989), as scikit-learn's ``roc_auc_score`` has it
        with ``max_fpr``; False: the area itself divided by ``max_fpr``, of which chance has ``max_fpr`` / 2.

    Raises
    ------
    UserError
        For NaN or inf (the row is named), an empty side, ``max_fpr`` outside (0, 1].

    References
    ----------
    McClish, Analyzing a portion of the ROC curve, Medical Decision Making 9, 1989.

    Examples
    --------
    >>> round(partial_auroc([4.0, 3.0, 2.0, 1.0], [2.5, 0.5, 0.0], max_fpr=0.5), 6)
    0.777778
    """
    largest = _checks.fraction("max_fpr", max_fpr)
    if not largest:
        _checks.fraction("max_fpr", max_fpr, open_ends=True)
    standardised = _checks.switch("standardised", standardised)
    curve = roc_curve(id_scores, ood_scores, positive=positive)
    inside = curve.fpr <= largest
    last = float(np.interp(largest, curve.fpr, curve.tpr)) if curve.fpr[inside][-1] < largest else curve.tpr[inside][-1]
    fpr = np.append(curve.fpr[inside], largest)
    tpr = np.append(curve.tpr[inside], last)
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1])).sum() / 2)
    if not standardised:
        return area / largest
    least = largest**2 / 2
    return 0.5 if largest == least else (1 + (area - least) / (largest - least)) / 2


def equal_error_rate(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Return the rate at which as large a share of ID rows is rejected as of OOD rows accepted (EER). Lower is better.

    Where the ROC curve, straight between its points, crosses the line TPR = 1 - FPR; in [0, 1], 0.5 is chance. The same
    whichever side is called positive. Parameters and errors as for :func:`analyze.metrics.auroc`. Source: Martin et
    al., "The DET curve in assessment of detection task performance", Eurospeech 1997.

    Examples
    --------
    >>> equal_error_rate([3.0, 2.0], [2.0, 1.0])
    0.25
    """
    curve = roc_curve(id_scores, ood_scores)
    surplus = curve.tpr + curve.fpr - 1  # from -1 to 1, never falling
    after = int(np.searchsorted(surplus, 0.0, side="left"))
    low, high = surplus[after - 1], surplus[after]
    share = -low / (high - low)
    return float(curve.fpr[after - 1] + share * (curve.fpr[after] - curve.fpr[after - 1]))


@dataclass(frozen=True, eq=False)
class PrCurve:
    """Points of a precision-recall curve, from the strictest threshold to "all is positive".

    Attributes
    ----------
    thresholds
        (k,) score at and above which a row is accepted (for ``positive="ood"``: at and below); the first accepts none.
    precision, recall
        (k,) share of positives among the accepted, and of the accepted among positives; precision is 1 by convention
        where nothing is accepted. One point per distinct score, none dropped.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def pr_curve(id_scores: ArrayLike, ood_scores: ArrayLike, *, positive: Positive = "id") -> PrCurve:
    """Return the precision-recall curve with one point per distinct score.

    Parameters and errors as for :func:`analyze.metrics.aupr`; Davis and Goadrich, ICML 2006.
    """
    inside, outside = _checks.vector("id_scores", id_scores), _checks.vector("ood_scores", ood_scores)
    curve = roc_curve(inside, outside, positive=positive)
    positives, negatives = (inside.size, outside.size) if positive == "id" else (outside.size, inside.size)
    hits, alarms = np.rint(curve.tpr * positives), np.rint(curve.fpr * negatives)
    accepted = hits + alarms
    precision = np.where(accepted > 0, hits / np.maximum(accepted, 1), 1.0)
    return PrCurve(curve.thresholds, precision, curve.tpr)


ROWS = (
    Metric(
        "partial_auroc10", "AUROC up to 10 % FPR", "higher", "fraction", columns=SCORE_PAIR,
        function=partial(partial_auroc, max_fpr=0.1), version=2,
        evidence=Evidence(
            "McClish's standardised area under the ROC curve for FPR <= 0.1",
            "McClish, Medical Decision Making 9, 1989", "scikit-learn's roc_auc_score(max_fpr=0.1)",
        ),
    ),
    Metric(
        "partial_auroc{}", "AUROC up to {} % FPR", "higher", "fraction",
        evidence=Evidence(
            "McClish's standardised area under the ROC curve for FPR <= N %",
            "McClish, Medical Decision Making 9, 1989", "scikit-learn's roc_auc_score(max_fpr=...)",
            "test_metrics_more.py::test_the_partial_area_as_scikit_learn_has_it",
        ),
    ),
    Metric(
        "eer", "Equal error rate", "lower", "fraction", columns=SCORE_PAIR, function=equal_error_rate,
        version=2,
        evidence=Evidence(
            "FPR where the ROC curve crosses TPR = 1 - FPR", "Martin et al., Eurospeech 1997",
            "a root search on scikit-learn's roc_curve",
        ),
    ),
)  # fmt: skip
