"""Metrics: arrays in, a number or a frozen result out; no file is read and nothing is drawn."""

from analyze.metrics.agreement import (
    agreement,
    agreement_matrix,
    ensemble_probabilities,
    error_consistency,
    error_consistency_matrix,
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
from analyze.metrics.detection import RocCurve, aupr, auroc, fpr_at_tpr, roc_curve
from analyze.metrics.proper_scores import (
    BrierDecomposition,
    brier_decomposition,
    brier_score,
    negative_log_likelihood,
)
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
from analyze.metrics.shape_bias import (
    ShapeDecisions,
    predict_categories,
    shape_bias,
    shape_bias_by_category,
    shape_decisions,
)
from analyze.metrics.smooth_calibration import smooth_calibration_error

__all__ = [
    "BrierDecomposition",
    "ReliabilityDiagram",
    "RiskCoverageCurve",
    "RocCurve",
    "ShapeDecisions",
    "adaptive_calibration_error",
    "agreement",
    "agreement_matrix",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "brier_decomposition",
    "brier_score",
    "classwise_calibration_error",
    "correctness_auroc",
    "coverage_at_risk",
    "e_aurc",
    "ensemble_probabilities",
    "error_consistency",
    "error_consistency_matrix",
    "expected_calibration_error",
    "fpr_at_tpr",
    "ks_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "predict_categories",
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
]
