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
    worst_classes_accuracy,
)
from analyze.metrics.agreement import (
    agreement_matrix,
    ensemble_probabilities,
    error_consistency,
    error_consistency_interval,
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
from analyze.metrics.calibration_tests import (
    CalibratedError,
    calibrated_error,
    calibration_p_value,
    debiased_calibration_error,
    expected_error_if_calibrated,
    ks_p_value,
    kuiper_calibration_error,
    kuiper_p_value,
    spiegelhalter_p_value,
    spiegelhalter_z,
)
from analyze.metrics.classwise import adaptive_calibration_error, classwise_calibration_error
from analyze.metrics.clips import anchor_accuracy, clustered_proportion_interval
from analyze.metrics.conformal import ConformalSets, fit_conformal
from analyze.metrics.conformal_checks import (
    GroupedCoverage,
    conformal_p_values,
    coverage_by_class,
    coverage_by_size,
    grouped_coverage,
    size_groups,
)
from analyze.metrics.conformal_classes import ClassConformalSets, fit_class_conformal, fit_clustered_conformal
from analyze.metrics.corruption import ALEXNET_ERRORS, corruption_error, mean_corruption_error
from analyze.metrics.detection import RocCurve, aupr, auroc, fpr_at_tpr, roc_curve
from analyze.metrics.detection_points import PrCurve, equal_error_rate, partial_auroc, pr_curve
from analyze.metrics.diversity import EnsembleDiversity, ensemble_diversity
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
from analyze.metrics.registry import COLUMN_METRICS, METRICS, find_metric
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
from analyze.metrics.selective_areas import achievable_aurc, balanced_augrc, balanced_aurc, e_augrc
from analyze.metrics.shape_texture import (
    ShapeDecisions,
    predict_categories,
    shape_bias,
    shape_bias_by_category,
    shape_decisions,
)
from analyze.metrics.skill import d2_brier, d2_log_loss
from analyze.metrics.smooth_calibration import smooth_calibration_error
from analyze.metrics.soft_labels import soft_brier_score, soft_negative_log_likelihood
from analyze.metrics.spec import Metric
from analyze.metrics.top_label import top_label_calibration_error

__all__ = [
    "ALEXNET_ERRORS",
    "COLUMN_METRICS",
    "METRICS",
    "BrierDecomposition",
    "CalibratedError",
    "ClassConformalSets",
    "ConformalSets",
    "EnsembleDiversity",
    "FactorResult",
    "GroupedCoverage",
    "Metric",
    "PerClassAccuracy",
    "PrCurve",
    "ReliabilityDiagram",
    "RiskCoverageCurve",
    "RocCurve",
    "ShapeDecisions",
    "achievable_aurc",
    "adaptive_calibration_error",
    "agreement_matrix",
    "anchor_accuracy",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "balanced_augrc",
    "balanced_aurc",
    "brier_decomposition",
    "brier_score",
    "calibrated_error",
    "calibration_p_value",
    "classwise_calibration_error",
    "clustered_proportion_interval",
    "conformal_p_values",
    "correctness_auroc",
    "corruption_error",
    "coverage_at_risk",
    "coverage_by_class",
    "coverage_by_size",
    "d2_brier",
    "d2_log_loss",
    "debiased_calibration_error",
    "e_augrc",
    "e_aurc",
    "ensemble_diversity",
    "ensemble_probabilities",
    "equal_error_rate",
    "error_consistency",
    "error_consistency_interval",
    "error_consistency_matrix",
    "error_ratio",
    "expected_calibration_error",
    "expected_error_if_calibrated",
    "factor_accuracy",
    "factor_accuracy_matrix",
    "factor_results",
    "find_metric",
    "fit_class_conformal",
    "fit_clustered_conformal",
    "fit_conformal",
    "fpr_at_tpr",
    "grouped_coverage",
    "ks_calibration_error",
    "ks_p_value",
    "kuiper_calibration_error",
    "kuiper_p_value",
    "label_ranks",
    "maximum_calibration_error",
    "mean_corruption_error",
    "mean_per_class_accuracy",
    "multi_label_accuracy",
    "negative_log_likelihood",
    "partial_auroc",
    "per_class_accuracy",
    "pr_curve",
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
    "size_groups",
    "smooth_calibration_error",
    "soft_brier_score",
    "soft_negative_log_likelihood",
    "spiegelhalter_p_value",
    "spiegelhalter_z",
    "top1_accuracy",
    "top_k_accuracy",
    "top_label_calibration_error",
    "worst_class_accuracy",
    "worst_classes_accuracy",
    "worst_factor",
]
