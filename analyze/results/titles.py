"""Names as a reader sees them: metrics, scores and calibrators in tables, figures and the report."""

from __future__ import annotations

METRIC_TITLES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "corruption_error": "Corruption error (AlexNet: 1)",
    "mean_corruption_error": "mCE (AlexNet: 1)",
    "correctness_auroc": "AUROC of correctness",
    "e_aurc": "E-AURC",
    "ks_error": "KS error",
    "ece_mass": "ECE (equal mass)",
    "ece_mass100": "ECE (100 equal-mass bins)",
    "ece_l2_debiased": "ECE (debiased L2)",
    "calibration_gap": "Confidence minus accuracy",
    "sac99": "Coverage at 99 % accuracy",
    "coverage_at_risk1": "Coverage at 1 % risk",
    "coverage_at_risk5": "Coverage at 5 % risk",
    "risk_at_coverage80": "Risk at 80 % coverage",
    "conformal_coverage": "Conformal coverage",
    "conformal_size": "Conformal set size",
    "invalid_images": "Unreadable images",
    "mean_class_accuracy": "Mean per-class accuracy",
    "worst_class_accuracy": "Worst-class accuracy",
    "worst_class": "Index of the worst class",
    "multi_label_accuracy": "ReaL accuracy",
    "vector_scale": "Mean scale of vector scaling",
    "ece": "ECE",
    "mce": "MCE",
    "nll": "NLL",
    "brier": "Brier score",
    "smece": "Smooth ECE",
    "classwise_ece": "Classwise ECE",
    "aurc": "AURC",
    "augrc": "AUGRC",
    "auroc": "AUROC",
    "fpr95_id": "FPR@95",
    "fpr95_ood": "FPR@95 (OOD positive)",
    "aupr_in": "AUPR-in",
    "aupr_out": "AUPR-out",
    "factor_accuracy": "Factor accuracy",
    "worst_factor_accuracy": "Worst-factor accuracy",
    "error_ratio": "Error ratio",
    "shape_bias": "Shape bias",
    "shape_share": "Shape decisions",
    "texture_share": "Texture decisions",
    "temperature": "Temperature",
    "effective_robustness": "Effective robustness",
    "relative_robustness": "Relative robustness",
}
"""Metric -> title; names that are not here are shown as they are."""

SCORE_TITLES = {
    "study": "MCM or MSP",
    "msp": "MSP",
    "mcm": "MCM",
    "mls": "max logit",
    "energy": "energy",
    "knn": "kNN",
    "vim": "ViM",
    "mds": "Mahalanobis",
    "rmds": "relative Mahalanobis",
    "gen": "GEN",
    "odin": "ODIN",
    "react": "ReAct",
    "dice": "DICE",
    "she": "SHE",
    "klm": "KL-matching",
    "fdbd": "fDBD",
    "nnguide": "NNGuide",
}

ACRONYMS = {
    "imagenet": "ImageNet",
    "ood": "OOD",
    "inaturalist": "iNaturalist",
    "openimage": "OpenImage",
    "objectnet": "ObjectNet",
    "sun": "SUN",
    "places": "Places",
    "textures": "Textures",
    "ninco": "NINCO",
    "ssb": "SSB",
    "ytbb": "YTBB",
}

FRACTIONS = frozenset(
    {
        "top1",
        "top5",
        "mean_class_accuracy",
        "worst_class_accuracy",
        "multi_label_accuracy",
        "worst_factor_accuracy",
        "ece",
        "mce",
        "smece",
        "classwise_ece",
        "auroc",
        "correctness_auroc",
        "fpr95_id",
        "fpr95_ood",
        "aupr_in",
        "aupr_out",
        "factor_accuracy",
        "shape_bias",
        "shape_share",
        "texture_share",
        "augrc",
        "aurc",
        "e_aurc",
        "effective_robustness",
        "relative_robustness",
        "ece_mass",
        "ks_error",
        "ece_mass100",
        "ece_l2_debiased",
        "calibration_gap",
        "sac99",
        "coverage_at_risk1",
        "coverage_at_risk5",
        "risk_at_coverage80",
        "conformal_coverage",
    }
)
"""Metrics in 0..1 that papers print as percent."""

PROPORTIONS = frozenset(
    {
        "top1",
        "top5",
        "mean_class_accuracy",
        "worst_class_accuracy",
        "multi_label_accuracy",
        "factor_accuracy",
        "worst_factor_accuracy",
    }
)
"""Metrics that are shares of images: the ones a probit or logit axis is meant for."""


def metric_title(metric: str) -> str:
    """Return the metric's name as a paper prints it."""
    return METRIC_TITLES.get(metric, metric.replace("_", " "))


def score_title(score: str) -> str:
    """Return the OOD score's or detector's name as a paper prints it."""
    return SCORE_TITLES.get(score, score)


def dataset_title(dataset: str) -> str:
    """Return the dataset's name as a paper prints it (``imagenet-a`` -> ``ImageNet-A``).

    Examples
    --------
    >>> dataset_title("imagenet-v2-a")
    'ImageNet-V2-A'
    """
    if dataset.lower() != dataset or not dataset:
        return dataset
    if dataset == "imagenet-val":
        return "ImageNet"
    parts = dataset.split("-")
    shown = [
        ACRONYMS.get(part, part.capitalize() if len(part) > 2 or index == 0 else part.upper())
        for index, part in enumerate(parts)
    ]
    return "-".join(shown)


def factor_title(factor: str) -> str:
    """Return a visual factor's name as a paper prints it (``partial_view`` -> ``Partial view``)."""
    return factor.replace("_", " ").capitalize()
