"""Names of the result table: which function makes a number, from which columns, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from analyze.metrics import accuracy, calibration, classwise, detection, factors, proper_scores, selective
from analyze.metrics.agreement import error_consistency
from analyze.metrics.shape_texture import shape_bias
from analyze.metrics.smooth_calibration import smooth_calibration_error

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class MetricSpec:
    """One metric of the result table.

    Attributes
    ----------
    function
        Takes the columns of ``needs`` in that order, returns a float.
    needs
        ``confidences`` and ``correct`` (n,), ``logits`` or ``probabilities`` (n, C), ``labels`` (n,),
        ``id_scores`` and ``ood_scores``, ``member`` (n,), ``predicted_category``, ``shape``, ``texture``,
        ``correct_a``, ``correct_b``.
    direction
        Which way is better.
    low, high
        Range.
    version
        Moves whenever the same columns would give another value.
    """

    function: Callable[..., float]
    needs: tuple[str, ...]
    direction: Direction
    low: float
    high: float
    version: int = 1


_TOP_LABEL = ("confidences", "correct")
_PAIR = ("id_scores", "ood_scores")
_ROWS = ("probabilities", "labels")
_INF = float("inf")


def _spec(
    function: Callable[..., Any],
    needs: tuple[str, ...],
    direction: Direction,
    low: float = 0.0,
    high: float = 1.0,
) -> MetricSpec:
    return MetricSpec(function, needs, direction, low, high)


_ece = calibration.expected_calibration_error

METRICS: dict[str, MetricSpec] = {
    "top1": _spec(accuracy.top1_accuracy, ("correct",), "higher"),
    "top5": _spec(accuracy.top_k_accuracy, ("logits", "labels"), "higher"),
    "ece": _spec(_ece, _TOP_LABEL, "lower"),
    "ece_mass": _spec(partial(_ece, binning="mass"), _TOP_LABEL, "lower"),
    "ece_mass100": _spec(partial(_ece, binning="mass", n_bins=100), _TOP_LABEL, "lower"),
    "ece_l2": _spec(partial(_ece, norm="l2"), _TOP_LABEL, "lower"),
    "ece_l2_debiased": _spec(partial(_ece, norm="l2", binning="mass", debias=True), _TOP_LABEL, "lower"),
    "mce": _spec(calibration.maximum_calibration_error, _TOP_LABEL, "lower"),
    "calibration_gap": _spec(calibration.signed_calibration_gap, _TOP_LABEL, "none", -1.0),
    "ks_error": _spec(calibration.ks_calibration_error, _TOP_LABEL, "lower"),
    "smece": _spec(smooth_calibration_error, _TOP_LABEL, "lower"),
    "smece_logit": _spec(partial(smooth_calibration_error, kernel="logit"), _TOP_LABEL, "lower"),
    "classwise_ece": _spec(classwise.classwise_calibration_error, _ROWS, "lower"),
    "ace": _spec(classwise.adaptive_calibration_error, _ROWS, "lower"),
    "tace": _spec(partial(classwise.adaptive_calibration_error, threshold=0.01), _ROWS, "lower"),
    "nll": _spec(proper_scores.negative_log_likelihood, ("logits", "labels"), "lower", 0.0, _INF),
    "brier": _spec(proper_scores.brier_score, _ROWS, "lower", 0.0, 2.0),
    "aurc": _spec(selective.aurc, _TOP_LABEL, "lower"),
    "e_aurc": _spec(selective.e_aurc, _TOP_LABEL, "lower", -1.0),
    "augrc": _spec(selective.augrc, _TOP_LABEL, "lower", 0.0, 0.5),
    "correctness_auroc": _spec(selective.correctness_auroc, _TOP_LABEL, "higher"),
    "coverage_at_risk5": _spec(selective.coverage_at_risk, _TOP_LABEL, "higher"),
    "risk_at_coverage80": _spec(selective.risk_at_coverage, _TOP_LABEL, "lower"),
    "sac99": _spec(selective.selective_accuracy_constraint, _TOP_LABEL, "higher"),
    "auroc": _spec(detection.auroc, _PAIR, "higher"),
    "fpr95_id": _spec(partial(detection.fpr_at_tpr, positive="id"), _PAIR, "lower"),
    "fpr95_ood": _spec(partial(detection.fpr_at_tpr, positive="ood"), _PAIR, "lower"),
    "aupr_in": _spec(partial(detection.aupr, positive="id"), _PAIR, "higher"),
    "aupr_out": _spec(partial(detection.aupr, positive="ood"), _PAIR, "higher"),
    "factor_accuracy": _spec(factors.factor_accuracy, ("correct", "member"), "higher"),
    "error_ratio": _spec(factors.error_ratio, ("correct", "member"), "lower", 0.0, _INF),
    "shape_bias": _spec(shape_bias, ("predicted_category", "shape", "texture"), "none"),
    "error_consistency": _spec(error_consistency, ("correct_a", "correct_b"), "none", -1.0),
}
"""Name in the result table -> how it is computed."""
