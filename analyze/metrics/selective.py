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
from analyze.metrics.detection import auroc
from cache_schema.errors import UserError


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


def _column(confidences: ArrayLike, correct: ArrayLike) -> tuple[_checks.Floats, _checks.Bools]:
    # Any score of confidence will do (margin, negative entropy): only its order counts.
    confidence = _checks.vector("confidences", confidences)
    return confidence, _checks.correct(correct, confidence.size)


def _groups(
    confidence: _checks.Floats, right: _checks.Bools
) -> tuple[_checks.Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct confidences from the highest, with rows answered and errors among them."""
    order = np.argsort(confidence, kind="stable")[::-1]
    ordered = confidence[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    errors = np.cumsum(~right[order], dtype=np.int64)[ends]
    return ordered[ends], ends + 1, errors


def risk_coverage_curve(confidences: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """Return the risk-coverage curve; parameters as for :func:`aurc`."""
    values, answered, errors = _groups(*_column(confidences, correct))
    n = answered[-1]
    return RiskCoverageCurve(values.astype(np.float64), answered / n, errors / answered, errors / n)


def aurc(confidences: ArrayLike, correct: ArrayLike, *, curve: Literal["trapezoid", "mean"] = "trapezoid") -> float:
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
    confidence, right = _column(confidences, correct)
    _, answered, errors = _groups(confidence, right)
    n = confidence.size
    if curve == "trapezoid":
        risk = errors / answered
        before = np.concatenate([risk[:1], risk[:-1]])
        return float((np.diff(answered, prepend=0) * (risk + before)).sum() / (2 * n))
    starts = np.concatenate([[0], answered[:-1]])
    wrong = np.concatenate([[0], errors[:-1]])
    size = answered - starts
    k = np.arange(1, n + 1)
    further = (k - np.repeat(starts, size)) * np.repeat((errors - wrong) / size, size)
    expected = np.repeat(wrong, size) + further
    return float((expected / k).mean())


def e_aurc(confidences: ArrayLike, correct: ArrayLike, *, curve: Literal["trapezoid", "mean"] = "trapezoid") -> float:
    """Return AURC less that of a perfect ranking, r + (1 - r) ln(1 - r) for error rate r. Lower is better.

    Not below zero but by the approximation of the perfect value, at most about 1/n, and by straight lines
    between points; in (-1, 1]. Parameters and errors as for :func:`aurc`. Source: Geifman, Uziel and El-Yaniv,
    ICLR 2019.
    """
    confidence, right = _column(confidences, correct)
    return aurc(confidence, right, curve=curve) - optimal_area(1 - np.count_nonzero(right) / right.size)


def optimal_area(error: float) -> float:
    """Return the AURC of a perfect ranking at this error rate."""
    return float(error + (1 - error) * np.log1p(-error)) if error < 1 else 1.0


def augrc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the generalised risk-coverage curve. Lower is better.

    Generalised risk is the share of all rows that are answered and wrong; straight lines join points of
    distinct confidence. It obeys AUGRC = (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with accuracy a and AUROC of
    correctness.

    Parameters
    ----------
    confidences, correct
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
    confidence, right = _column(confidences, correct)
    _, answered, errors = _groups(confidence, right)
    n = confidence.size
    before = np.concatenate([[0], errors[:-1]])
    return float((np.diff(answered, prepend=0) * (errors + before)).sum()) / (2 * n * n)


def correctness_auroc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return P(confidence of a right row > that of a wrong one), ties half. Higher is better; in [0, 1].

    Also called AUROC of misclassification detection (Hendrycks and Gimpel, ICLR 2017). Parameters as for :func:`aurc`.

    Raises
    ------
    UserError
        Also where all rows are right, or all wrong: there is no pair to compare.
    """
    confidence, right = _column(confidences, correct)
    if right.all() or not right.any():
        raise UserError(f"every row is {'right' if right[0] else 'wrong'}: AUROC of correctness needs both")
    return auroc(confidence[right], confidence[~right])


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
    _checks.fraction("risk", risk)
    skip = _checks.whole_number("skip", skip, least=0)
    _, answered, errors = _groups(*_column(confidences, correct))
    fits = (errors / answered <= risk) & (answered > skip)
    return float(answered[fits].max(initial=0) / answered[-1])


def risk_at_coverage(confidences: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8) -> float:
    """Return the risk at the first point of at least this coverage. Lower is better; in [0, 1].

    Parameters and errors as for :func:`aurc`; a ``coverage`` outside [0, 1] is refused. Source: Geifman and El-Yaniv,
    NeurIPS 2017.
    """
    wanted = _checks.fraction("coverage", coverage)
    _, answered, errors = _groups(*_column(confidences, correct))
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
    _, answered, errors = _groups(*_column(confidences, correct))
    fits = ((answered - errors) / answered >= accuracy) & (answered > skip)
    return float(answered[fits].max(initial=0) / answered[-1])
