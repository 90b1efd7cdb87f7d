"""Good arguments of every public function of metrics, calibrators, detectors and intervals.

What is public is found by itself: a new function is tested as soon as it is exported, and its tests fail where its
arguments are not known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from analyze import calibrators, detectors, intervals, metrics
from analyze.calibrators import Beta, HistogramBinning, Isotonic, TemperatureFit, VectorFit
from analyze.metrics import fit_conformal

N, C, D = 60, 3, 4
RNG = np.random.default_rng(2)
LABELS = RNG.integers(0, C, N)
# Multiples of 1/1024: every float type holds them exactly.
LOGITS = np.round(RNG.normal(0, 1, (N, C)) * 1024) / 1024
LOGITS[np.arange(N), LABELS] += 1
FEATURES = np.round(RNG.normal(0, 1, (N, D)) * 1024) / 1024
SHARES = RNG.multinomial(1024, np.ones(C) / C, N) / 1024
CONFIDENCES = RNG.integers(1, 1024, N) / 1024
RIGHT, OTHER = RNG.random(N) < CONFIDENCES, RNG.random(N) < 0.5
WEIGHT, BIAS = FEATURES[:C], FEATURES[:C, 0]

ARRAYS: dict[str, tuple[str, Any]] = {
    # argument: (kind, a good value)
    "confidences": ("unit", CONFIDENCES), "probabilities": ("unit", SHARES), "correct": ("truth", RIGHT),
    "correct_a": ("truth", RIGHT), "correct_b": ("truth", OTHER), "member": ("truth", OTHER),
    "labels": ("classes", LABELS), "logits": ("logits", LOGITS), "id_scores": ("scores", FEATURES[:, 0]),
    "ood_scores": ("scores", FEATURES[:, 1]), "predictions": ("numbers", LABELS),
    "predictions_a": ("numbers", LABELS), "predictions_b": ("numbers", LABELS[::-1].copy()),
    "predicted_category": ("names", LABELS), "shape": ("names", LABELS),
    "texture": ("names", (LABELS + 1) % C), "errors": ("unit", CONFIDENCES[:5]), "features": ("rows", FEATURES),
    "anchors": ("names", LABELS), "clusters": ("names", LABELS), "right": ("truth", RIGHT),
    "weight": ("rows", WEIGHT), "bias": ("rows", BIAS), "targets": ("unit", SHARES[::-1].copy()),
    "covered": ("truth", RIGHT), "groups": ("numbers", LABELS), "sizes": ("numbers", LABELS),
    "first": ("scores", FEATURES[:, 0]), "second": ("scores", FEATURES[:, 1]),
    "sets": ("truth", SHARES > 0.3), "test_probabilities": ("unit", SHARES[::-1].copy()),
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "n_classes": C,
    "baseline_error": 0.5,
    "method": "isotonic",
    "estimate": 0.5,
    "successes": 3,
    "n": 7,
    "level": 0.9,
}
"""Arguments that are not arrays, where they have no default."""

OPTIONAL: dict[str, tuple[str, Any]] = dict.fromkeys(("weights", "id_weights", "ood_weights"), ("weights", CONFIDENCES))
"""Arrays that may be left out; `weight` is another argument, a number or a matrix."""

SPECIAL: dict[str, tuple[Callable[..., Any], dict[str, tuple[str, Any]]]] = {
    # functions whose arguments of these names are of another form
    "agreement_matrix": (metrics.agreement_matrix, {"predictions": ("numbers", np.stack([LABELS, LABELS[::-1]]))}),
    "error_consistency_matrix": (metrics.error_consistency_matrix, {"correct": ("truth", np.stack([RIGHT, OTHER]))}),
    "factor_accuracy_matrix": (metrics.factor_accuracy_matrix, {
        "correct": ("truth", np.stack([RIGHT, OTHER])), "members": ("truth", np.stack([RIGHT, OTHER], axis=1))}),
    "factor_results": (lambda correct, member: metrics.factor_results(correct, {"f": member}), {
        "correct": ("truth", RIGHT), "member": ("truth", OTHER)}),
    "multi_label_accuracy": (lambda predictions: metrics.multi_label_accuracy(predictions, [[0, 1]] * N), {
        "predictions": ("numbers", LABELS)}),
    "mean_corruption_error": (lambda errors: metrics.mean_corruption_error({"fog": errors}, {"fog": 0.5}), {
        "errors": ("unit", CONFIDENCES[:5])}),
    "ensemble_diversity": (lambda probabilities: metrics.ensemble_diversity([probabilities, SHARES]), {
        "probabilities": ("unit", SHARES)}),
    "ensemble_probabilities": (lambda probabilities: metrics.ensemble_probabilities([probabilities, SHARES]), {
        "probabilities": ("unit", SHARES)}),
    "predict_categories": (lambda probabilities: metrics.predict_categories(probabilities, {"a": [0, 2], "b": [1]}), {
        "probabilities": ("unit", SHARES)}),
    "bootstrap": (lambda columns: intervals.bootstrap(np.mean, columns, rng=np.random.default_rng(0), replicates=9), {
        "columns": ("columns", CONFIDENCES)}),
    "bootstrap_interval": (partial(intervals.bootstrap_interval, 0.5), {"replicates": ("replicates", CONFIDENCES)}),
    "paired_difference": (lambda first, second: intervals.paired_difference(
        first, second, rng=np.random.default_rng(0), replicates=99), {
        "first": ("scores", CONFIDENCES), "second": ("scores", CONFIDENCES[::-1].copy())}),
    "fit_rows": (lambda labels, usable: calibrators.fit_rows(labels, usable=usable), {
        "labels": ("numbers", LABELS), "usable": ("truth", OTHER)}),
    "score_all": (partial(detectors.score_all, [detectors.get("msp").fit(), detectors.get("l-mcm").fit()]), {
        "logits": ("rows", LOGITS), "patch_scores": ("rows", CONFIDENCES)}),
    "TemperatureFit.apply": (TemperatureFit(2.0, 1.0, 0.9, 5, 0.1, 3).apply, {"logits": ("any", LOGITS)}),
    "VectorFit.apply": (VectorFit(np.ones(C), np.zeros(C), 1.0, 0.9, 5, 3, 0.0).apply, {"logits": ("rows", LOGITS)}),
    "HistogramBinning.apply": (HistogramBinning(np.arange(3) / 2, np.array([0.2, 0.8])).apply, {
        "confidences": ("unit", CONFIDENCES)}),
    "Isotonic.apply": (Isotonic(np.arange(2.0), np.arange(2.0)).apply, {"confidences": ("unit", CONFIDENCES)}),
    "Beta.apply": (Beta(1.0, 0.5, 0.1).apply, {"confidences": ("unit", CONFIDENCES)}),
    "Platt.apply": (calibrators.Platt(1.0, 0.5).apply, {"confidences": ("unit", CONFIDENCES)}),
    **{f"VennAbers.{name}": (getattr(calibrators.fit_venn_abers(CONFIDENCES, RIGHT), name), {
        "confidences": ("unit", CONFIDENCES)}) for name in ("apply", "bounds")},
    "TopLabelBinning.apply": (calibrators.fit_top_label(CONFIDENCES, RIGHT, LABELS, rows_per_bin=9).apply, {
        "confidences": ("unit", CONFIDENCES), "predictions": ("numbers", LABELS)}),
    "MatrixFit.apply": (calibrators.fit_matrix_scaling(LOGITS, LABELS).apply, {"logits": ("rows", LOGITS)}),
    **{f"ClassConformalSets.{name}": (getattr(metrics.fit_class_conformal(SHARES, LABELS), name), given)
       for name, given in {
        "sets": {"probabilities": ("unit", SHARES)}, "mean_size": {"probabilities": ("unit", SHARES)},
        "coverage": {"probabilities": ("unit", SHARES), "labels": ("classes", LABELS)}}.items()},
    **{f"ConformalSets.{name}": (getattr(fit_conformal(SHARES, LABELS, method="aps"), name), given) for name, given in {
        "sets": {"probabilities": ("unit", SHARES)}, "mean_size": {"probabilities": ("unit", SHARES)},
        "coverage": {"probabilities": ("unit", SHARES), "labels": ("classes", LABELS)},
        "label_scores": {"probabilities": ("unit", SHARES), "labels": ("classes", LABELS)},
        "class_scores": {"probabilities": ("unit", SHARES)},
    }.items()},
    "Fitted.score": (detectors.get("mls").fit().score, {"logits": ("rows", LOGITS)}),
    "Detector.fit": (
        lambda features: detectors.get("react").fit(validation=(features, LOGITS), head=(WEIGHT, BIAS)).score(
            features=FEATURES), {"features": ("rows", FEATURES)}),
    "Head.of": (lambda weight, bias: detectors.Head.of((weight, bias)), {
        "weight": ("rows", WEIGHT), "bias": ("rows", BIAS)}),
    "Reference.of": (lambda features, logits, labels: detectors.Reference.of((features, logits, labels)), {
        "features": ("rows", FEATURES), "logits": ("rows", LOGITS), "labels": ("classes", LABELS)}),
    "Reference.from_arrays": (detectors.Reference.from_arrays, {
        "features": ("rows", FEATURES), "logits": ("rows", LOGITS), "labels": ("classes", LABELS)}),
    "Validation.of": (lambda features, logits, labels: detectors.Validation.of((features, logits, labels)), {
        "features": ("rows", FEATURES), "logits": ("rows", LOGITS), "labels": ("numbers", LABELS)}),
}  # fmt: skip

RANKED = {"achievable_aurc", "augrc", "aurc", "balanced_augrc", "balanced_aurc", "correctness_auroc",
          "coverage_at_risk", "e_augrc", "e_aurc", "risk_at_coverage", "risk_coverage_curve",
          "selective_accuracy_constraint"}  # fmt: skip
"""Functions that look at the order of confidences alone: any finite score will do."""

NO_ARRAYS = {
    "GroupedCoverage.gap", "GroupedCoverage.largest_violation", "ConformalSets.block_scores", "MatrixFit.move",
    "find_metric", "worst_factor", "fit_temperature_store", "fit_vector_scaling_store", "defaults", "get", "names",
    "requirements", "sweep", "ConfidenceMap.apply", "Detector.missing", "Fitted.score_rows", "Reference.from_store",
    "Reference.of_unit_length", "Reference.with_unit_sums", "BootstrapWeights.all",
    "BootstrapWeights.blocks", "Interval.described", "quantiles",
}  # fmt: skip
"""Functions of names, stores and results."""


def public() -> Mapping[str, Callable[..., Any]]:
    """Every exported function, and every public method of an exported class."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (metrics, calibrators, detectors, intervals):
        for name in module.__all__:
            held = getattr(module, name)
            if inspect.isfunction(held):
                found[name] = held
            elif inspect.isclass(held):
                own = [key for key, value in vars(held).items() if callable(getattr(held, key)) and key[0] != "_"
                       and not isinstance(value, (property, type))]  # fmt: skip
                found |= {f"{name}.{key}": getattr(held, key) for key in own if name != "Metric"}
    return found


def cases() -> dict[str, tuple[Callable[..., Any], dict[str, tuple[str, Any]]]]:
    made = {}
    for name, function in public().items():
        if name in NO_ARRAYS:
            continue
        if name in SPECIAL:
            made[name] = SPECIAL[name]
            continue
        wanted = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        unknown = [key for key in wanted if key not in ARRAYS and key not in PLAIN]
        assert not unknown, f"{name}: say in this file what {', '.join(unknown)} hold"
        fixed = {key: PLAIN[key] for key in wanted if key in PLAIN}
        arrays = {key: ARRAYS[key] for key in wanted if key in ARRAYS}
        if name in RANKED:
            arrays["confidences"] = ("scores", CONFIDENCES)
        made[name] = partial(function, **fixed), arrays
        for key in [key for key in OPTIONAL if key in inspect.signature(function).parameters]:
            made[f"{name} with {key}"] = partial(function, **fixed), {**arrays, key: OPTIONAL[key]}
    return made


CASES = cases()
EACH = [(name, key) for name, (_, arrays) in CASES.items() for key in arrays]
