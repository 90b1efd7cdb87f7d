"""Metrics: arrays in, a number or a frozen result out; no file is read and nothing is drawn.

Imports kernels alone; intervals, suites and all after them import it.
"""

from analyze.metrics.accuracy import (
    PerClassAccuracy,
    label_ranks,
    mean_per_class_accuracy,
    multi_label_accuracy,
    per_class_accuracy,
    top1_accuracy,
    top_k_accuracy,
    worst_class_accuracy,
)
from analyze.metrics.agreement import (
    agreement_matrix,
    ensemble_probabilities,
    error_consistency,
    error_consistency_matrix,
    prediction_agreement,
)
from analyze.metrics.calibration import (
    ReliabilityDiagram,
    expected_calibration_error,
    ks_calibration_error,
    maximum_calibration_error,
    reliability_diagram,
    signed_calibration_gap,
)
from analyze.metrics.classwise import adaptive_calibration_error, classwise_calibration_error
from analyze.metrics.conformal import ConformalSets, fit_conformal
from analyze.metrics.corruption import ALEXNET_ERRORS, corruption_error, mean_corruption_error
from analyze.metrics.detection import RocCurve, aupr, auroc, fpr_at_tpr, roc_curve
from analyze.metrics.factors import (
    FactorResult,
    error_ratio,
    factor_accuracy,
    factor_accuracy_matrix,
    factor_results,
    worst_factor,
)
from analyze.metrics.proper_scores import (
    BrierDecomposition,
    brier_decomposition,
    brier_score,
    negative_log_likelihood,
)
from analyze.metrics.registry import METRICS, MetricSpec
from analyze.metrics.selective import (
    RiskCoverageCurve,
    augrc,
    aurc,
    correctness_auroc,
    coverage_at_risk,
    e_aurc,
    risk_at_coverage,
    risk_coverage_curve,
    selective_accuracy_constraint,
)
from analyze.metrics.shape_texture import (
    ShapeDecisions,
    predict_categories,
    shape_bias,
    shape_bias_by_category,
    shape_decisions,
)
from analyze.metrics.smooth_calibration import smooth_calibration_error

__all__ = [
    "ALEXNET_ERRORS",
    "METRICS",
    "BrierDecomposition",
    "ConformalSets",
    "FactorResult",
    "MetricSpec",
    "PerClassAccuracy",
    "ReliabilityDiagram",
    "RiskCoverageCurve",
    "RocCurve",
    "ShapeDecisions",
    "adaptive_calibration_error",
    "agreement_matrix",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "brier_decomposition",
    "brier_score",
    "classwise_calibration_error",
    "correctness_auroc",
    "corruption_error",
    "coverage_at_risk",
    "e_aurc",
    "ensemble_probabilities",
    "error_consistency",
    "error_consistency_matrix",
    "error_ratio",
    "expected_calibration_error",
    "factor_accuracy",
    "factor_accuracy_matrix",
    "factor_results",
    "fit_conformal",
    "fpr_at_tpr",
    "ks_calibration_error",
    "label_ranks",
    "maximum_calibration_error",
    "mean_corruption_error",
    "mean_per_class_accuracy",
    "multi_label_accuracy",
    "negative_log_likelihood",
    "per_class_accuracy",
    "predict_categories",
    "prediction_agreement",
    "reliability_diagram",
    "risk_at_coverage",
    "risk_coverage_curve",
    "roc_curve",
    "selective_accuracy_constraint",
    "shape_bias",
    "shape_bias_by_category",
    "shape_decisions",
    "signed_calibration_gap",
    "smooth_calibration_error",
    "top1_accuracy",
    "top_k_accuracy",
    "worst_class_accuracy",
    "worst_factor",
]
