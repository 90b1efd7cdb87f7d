"""Selective prediction: answer the sure images, leave the others, and count the errors among those answered.

Rows are answered from the most confident down, equal confidences together, so that no number depends on row
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._rows import counted
from analyze.metrics.accuracy import top1_accuracy
from analyze.metrics.detection import auroc
from analyze.metrics.spec import TOP_LABEL, Evidence, Metric
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Risk among the answered as the threshold falls; one point per distinct confidence.

    Attributes
    ----------
    thresholds
        (k,) confidences, falling: rows at or above are answered.
    coverage
        (k,) share answered, rising to 1.
    risk
        (k,) share of errors among the answered.
    joint_risk
        (k,) share of all rows that are answered and wrong: risk x coverage.
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    joint_risk: NDArray[np.float64]


Totals = NDArray[np.int64] | NDArray[np.float64]


def selective_columns(confidences: ArrayLike, correct: ArrayLike) -> tuple[_checks.Floats, _checks.Bools]:
    """Return checked columns of finite scores and of right and wrong."""
    # Any score of confidence will do (margin, negative entropy): only its order counts.
    confidence = _checks.vector("confidences", confidences)
    return confidence, _checks.correct(correct, confidence.size)


def tie_groups(
    confidence: _checks.Floats, right: _checks.Bools, weights: ArrayLike | None = None
) -> tuple[_checks.Floats, Totals, Totals]:
    """Return distinct confidences from the highest, with rows answered and errors among them, or their weights."""
    mass = None
    if weights is not None:
        keep, mass = counted(confidence.size, weights)
        if keep is not None:
            confidence, right = confidence[keep], right[keep]
    order = np.argsort(confidence, kind="stable")[::-1]
    ordered = confidence[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    if mass is not None:
        return ordered[ends], np.cumsum(mass[order])[ends], np.cumsum(mass[order] * ~right[order])[ends]
    errors = np.cumsum(~right[order], dtype=np.int64)[ends]
    return ordered[ends], ends + 1, errors


def risk_coverage_curve(confidences: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """Return the risk-coverage curve; parameters as for :func:`aurc`."""
    values, answered, errors = tie_groups(*selective_columns(confidences, correct))
    n = answered[-1]
    return RiskCoverageCurve(values.astype(np.float64), answered / n, errors / answered, errors / n)


def aurc(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    curve: Literal["trapezoid", "mean"] = "trapezoid",
    weights: ArrayLike | None = None,
) -> float:
    """Return the area under the risk-coverage curve. Lower is better.

    Risk is the share of errors among the rows that are answered. Source: Geifman and El-Yaniv, NeurIPS 2017; the
    handling of ties after Jaeger et al., ICLR 2023.

    Parameters
    ----------
    confidences
        (n,) confidence of each prediction, any real numbers; only their order counts.
    correct
        (n,) whether the prediction was right.
    curve
        ``trapezoid``: straight lines between points, one a distinct confidence, and the first point's risk
        kept down to coverage 0 (fd-shifts). ``mean``: the mean over k = 1 ... n of the risk among the k
        most confident, within equal confidences its expectation over their order (Geifman et al. 2019).
        They agree to about 1/n.
    weights
        (n,) sample weights of at least 0; each row weighs the same when None. Coverage is then a share of weight. For
        ``trapezoid`` alone.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    UserError
        For NaN or inf (the row is named), no rows, lengths that differ.

    Examples
    --------
    >>> round(aurc([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1]), 6)
    0.114583
    """
    _checks.choice("curve", curve, ("trapezoid", "mean"))
    if weights is not None and curve != "trapezoid":
        raise UserError("weights need curve='trapezoid'")
    confidence, right = selective_columns(confidences, correct)
    _, answered, errors = tie_groups(confidence, right, weights)
    if curve == "trapezoid":
        risk = errors / answered
        before = np.concatenate([risk[:1], risk[:-1]])
        return float((np.diff(answered, prepend=0) * (risk + before)).sum() / (2 * answered[-1]))
    n = confidence.size
    starts = np.concatenate([[0], answered[:-1]])
    wrong = np.concatenate([[0], errors[:-1]])
    size = answered - starts
    k = np.arange(1, n + 1)
    further = (k - np.repeat(starts, size)) * np.repeat((errors - wrong) / size, size)
    expected = np.repeat(wrong, size) + further
    return float((expected / k).mean())


def e_aurc(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    curve: Literal["trapezoid", "mean"] = "trapezoid",
    weights: ArrayLike | None = None,
) -> float:
    """Return AURC less that of a perfect ranking, r + (1 - r) ln(1 - r) for error rate r. Lower is better.

    Not below zero but by the approximation of the perfect value, at most about 1/n, and by straight lines
    between points; in (-1, 1]. Parameters and errors as for :func:`aurc`. Source: Geifman, Uziel and El-Yaniv,
    ICLR 2019.
    """
    confidence, right = selective_columns(confidences, correct)
    error = 1 - top1_accuracy(right, weights=weights)
    return aurc(confidence, right, curve=curve, weights=weights) - optimal_area(error)


def optimal_area(error: float) -> float:
    """Return the AURC of a perfect ranking at this error rate."""
    return float(error + (1 - error) * np.log1p(-error)) if error < 1 else 1.0


def augrc(confidences: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Return the area under the generalised risk-coverage curve. Lower is better.

    Generalised risk is the share of all rows that are answered and wrong; straight lines join points of
    distinct confidence. It obeys AUGRC = (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with accuracy a and AUROC of
    correctness.

    Parameters
    ----------
    confidences, correct, weights
        As for :func:`aurc`.

    Returns
    -------
    float
        In [0, 0.5].

    Raises
    ------
    UserError
        For NaN or inf (the row is named), no rows, lengths that differ.

    References
    ----------
    Traub et al., "Overcoming common flaws in the evaluation of selective
    classification systems", NeurIPS 2024.

    Examples
    --------
    >>> augrc([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    0.09375
    """
    confidence, right = selective_columns(confidences, correct)
    _, answered, errors = tie_groups(confidence, right, weights)
    n = answered[-1]
    before = np.concatenate([[0], errors[:-1]])
    return float((np.diff(answered, prepend=0) * (errors + before)).sum() / (2 * n * n))


def correctness_auroc(confidences: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Return P(confidence of a right row > that of a wrong one), ties half. Higher is better; in [0, 1].

    Also called AUROC of misclassification detection (Hendrycks and Gimpel, ICLR 2017). Parameters as for :func:`aurc`.

    Raises
    ------
    UserError
        Also where all rows are right, or all wrong: there is no pair to compare.
    """
    confidence, right = selective_columns(confidences, correct)
    keep, mass = (None, None) if weights is None else counted(right.size, weights)
    if keep is not None:
        confidence, right = confidence[keep], right[keep]
    if right.all() or not right.any():
        raise UserError(f"every row is {'right' if right[0] else 'wrong'}: AUROC of correctness needs both")
    if mass is None:
        return auroc(confidence[right], confidence[~right])
    return auroc(confidence[right], confidence[~right], id_weights=mass[right], ood_weights=mass[~right])


def coverage_at_risk(confidences: ArrayLike, correct: ArrayLike, *, risk: float = 0.05, skip: int = 0) -> float:
    """Return the largest coverage whose risk is at most ``risk``; 0 where none is. Higher is better.

    Errors as for :func:`aurc`. Source: Geifman and El-Yaniv, NeurIPS 2017 (selection with guaranteed risk).

    Parameters
    ----------
    confidences, correct
        As for :func:`aurc`.
    risk
        The largest share of errors among the answered that is allowed.
    skip
        Points that answer this many rows or fewer are left out (their risk is noise; Galil et al. 2023 use
        200).

    Returns
    -------
    float
        In [0, 1].
    """
    risk = _checks.fraction("risk", risk)
    skip = _checks.whole_number("skip", skip, least=0)
    _, answered, errors = tie_groups(*selective_columns(confidences, correct))
    fits = (errors / answered <= risk) & (answered > skip)
    return float(answered[fits].max(initial=0) / answered[-1])


def risk_at_coverage(confidences: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8) -> float:
    """Return the risk at the first point of at least this coverage. Lower is better; in [0, 1].

    Parameters and errors as for :func:`aurc`; a ``coverage`` outside [0, 1] is refused. Source: Geifman and El-Yaniv,
    NeurIPS 2017.
    """
    wanted = _checks.fraction("coverage", coverage)
    _, answered, errors = tie_groups(*selective_columns(confidences, correct))
    point = int(np.searchsorted(answered / answered[-1], wanted, side="left"))
    return float(errors[point] / answered[point])


def selective_accuracy_constraint(
    confidences: ArrayLike, correct: ArrayLike, *, accuracy: float = 0.99, skip: int = 200
) -> float:
    """Return the largest coverage of at least this accuracy (SAC). Higher is better; in [0, 1].

    The first ``skip`` rows are left out, as in Galil, Dabbah and El-Yaniv, ICLR 2023. Zero where no point
    meets it. Parameters and errors as for :func:`aurc`.
    """
    accuracy = _checks.fraction("accuracy", accuracy)
    skip = _checks.whole_number("skip", skip, least=0)
    _, answered, errors = tie_groups(*selective_columns(confidences, correct))
    fits = ((answered - errors) / answered >= accuracy) & (answered > skip)
    return float(answered[fits].max(initial=0) / answered[-1])


ROWS = (
    Metric(
        "aurc", "AURC", "lower", "fraction", columns=TOP_LABEL, function=aurc, headline=9, version=3,
        evidence=Evidence(
            "area under risk over coverage, straight lines between distinct confidences",
            "Geifman and El-Yaniv, NeurIPS 2017; ties: Jaeger et al., ICLR 2023",
            "the definition, threshold by threshold; torch-uncertainty on distinct confidences",
        ),
    ),
    Metric(
        "e_aurc", "E-AURC", "lower", "fraction", low=-1.0, columns=TOP_LABEL, function=e_aurc, version=3,
        evidence=Evidence(
            "AURC - (r + (1 - r) ln(1 - r)), r the error rate", "Geifman, Uziel and El-Yaniv, ICLR 2019",
            "the definition, threshold by threshold",
        ),
    ),
    Metric(
        "augrc", "AUGRC", "lower", "fraction", high=0.5, columns=TOP_LABEL, function=augrc, version=3,
        evidence=Evidence(
            "area under (share answered and wrong) over coverage", "Traub et al., NeurIPS 2024",
            "the definition, threshold by threshold; torch-uncertainty on distinct confidences",
        ),
    ),
    Metric(
        "correctness_auroc", "AUROC of correctness", "higher", "fraction", columns=TOP_LABEL,
        function=correctness_auroc, version=3,
        evidence=Evidence(
            "P(c of a right row > c of a wrong row) + P(equal)/2", "Hendrycks and Gimpel, ICLR 2017",
            "scikit-learn's roc_auc_score",
        ),
    ),
    Metric(
        "coverage_at_risk5", "Coverage at 5 % risk", "higher", "fraction", columns=TOP_LABEL,
        function=coverage_at_risk, version=3,
        evidence=Evidence(
            "largest coverage with risk <= 0.05", "Geifman and El-Yaniv, NeurIPS 2017",
            "the definition, threshold by threshold",
        ),
    ),
    Metric(
        "risk_at_coverage80", "Risk at 80 % coverage", "lower", "fraction", columns=TOP_LABEL,
        function=risk_at_coverage, version=3,
        evidence=Evidence(
            "risk at the first coverage >= 0.8", "Geifman and El-Yaniv, NeurIPS 2017",
            "the definition, threshold by threshold",
        ),
    ),
    Metric(
        "sac99", "Coverage at 99 % accuracy", "higher", "fraction", columns=TOP_LABEL,
        function=selective_accuracy_constraint, version=3,
        evidence=Evidence(
            "largest coverage with accuracy >= 0.99, of more than 200 rows",
            "Galil, Dabbah and El-Yaniv, ICLR 2023", "the definition, threshold by threshold",
        ),
    ),
    Metric(
        "coverage_at_risk{}", "Coverage at {} % risk", "higher", "fraction", version=3,
        evidence=Evidence(
            "largest coverage with risk <= N %", "Geifman and El-Yaniv, NeurIPS 2017",
            "the definition, threshold by threshold",
            "test_metrics_selective.py::test_working_points_equal_the_loop",
        ),
    ),
    Metric(
        "risk_at_coverage{}", "Risk at {} % coverage", "lower", "fraction", version=3,
        evidence=Evidence(
            "risk at the first coverage >= N %", "Geifman and El-Yaniv, NeurIPS 2017",
            "the definition, threshold by threshold",
            "test_metrics_selective.py::test_working_points_equal_the_loop",
        ),
    ),
    Metric(
        "sac{}", "Coverage at {} % accuracy", "higher", "fraction", version=3,
        evidence=Evidence(
            "largest coverage with accuracy >= N %, of more than 200 rows", "Galil, Dabbah and El-Yaniv, ICLR 2023",
            "the definition, threshold by threshold",
            "test_metrics_selective.py::test_working_points_equal_the_loop",
        ),
    ),
)  # fmt: skip
