"""What others build on: names, signatures, metric names of the table and commands stay; more may join."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re

import numpy as np
import polars as pl
import pytest

import analyze.metrics
from analyze import calibrators
from analyze.annotations import FACTORS
from analyze.cli import main
from analyze.metrics import COLUMN_METRICS
from analyze.results import VARIANT_COLUMNS, read_results

SIGNATURES = {
    "expected_calibration_error": (
        ("confidences", "correct"),
        {"n_bins": 15, "binning": "width", "norm": "l1", "debias": False, "compat": None},
    ),
    "classwise_calibration_error": (("probabilities", "labels"), {"n_bins": 15}),
    "smooth_calibration_error": (("confidences", "correct"), {"kernel": "reflected", "compat": None}),
    "negative_log_likelihood": (("logits", "labels"), {}),
    "brier_score": (("probabilities", "labels"), {}),
    "aurc": (("confidences", "correct"), {}),
    "augrc": (("confidences", "correct"), {}),
    "auroc": (("id_scores", "ood_scores"), {}),
    "fpr_at_tpr": (("id_scores", "ood_scores"), {"tpr": 0.95, "positive": "id"}),
    "aupr": (("id_scores", "ood_scores"), {"positive": "id"}),
    "shape_bias": (("predicted_category", "shape", "texture"), {}),
    "error_consistency": (("correct_a", "correct_b"), {}),
}

IN_THE_TABLE = {
    "top1", "top5", "ece", "nll", "brier", "smece", "classwise_ece", "aurc", "augrc", "auroc", "fpr95_id", "fpr95_ood",
    "aupr_in", "aupr_out", "factor_accuracy", "error_ratio", "shape_bias",
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_stay(name):
    function = getattr(analyze.metrics, name)
    columns, options = SIGNATURES[name]
    found = inspect.signature(function).parameters
    required = [n for n, p in found.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert tuple(required) == columns
    assert all(found[n].default is inspect.Parameter.empty for n in required)
    others = {n: p for n, p in found.items() if n not in columns}
    assert all(p.kind is p.KEYWORD_ONLY for p in others.values())
    assert options.items() <= {n: p.default for n, p in others.items()}.items()


@pytest.mark.parametrize("name", COLUMN_METRICS)
def test_every_metric_says_its_direction_its_errors_and_its_source(name):
    function = COLUMN_METRICS[name].function
    text = inspect.getdoc(getattr(function, "func", function))
    words = {"lower": "Lower is better", "higher": "Higher is better"}.get(COLUMN_METRICS[name].direction, "better")
    assert words in text
    assert "Raises" in text or "rrors as" in text or "refused" in text
    assert re.search(r"\b(19|20)\d\d\b|scikit-learn", text), "a source"
    assert re.search(r"\b[Ii]n [\[(]|range|chance", text), "a range"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("binning", ("width", "mass")),
        ("norm", ("l1", "l2", "max")),
        ("compat", (None, "torchmetrics", "netcal", "guo")),
    ],
)
def test_words_of_the_calibration_error_stay(name, values):
    rng = np.random.default_rng(0)
    confidences = rng.random(50)
    for value in values:
        assert 0 <= analyze.metrics.expected_calibration_error(confidences, confidences > 0.4, **{name: value}) <= 1
    for kernel in ("reflected", "logit"):
        assert analyze.metrics.smooth_calibration_error(confidences, confidences > 0.4, kernel=kernel) > 0
    assert analyze.metrics.smooth_calibration_error(confidences, confidences > 0.4, compat="relplot") > 0
    for positive in ("id", "ood"):
        assert 0 <= analyze.metrics.fpr_at_tpr([0.2, 1.0], [0.1, 0.5], positive=positive) <= 1
        assert 0 <= analyze.metrics.aupr([0.2, 1.0], [0.1, 0.5], positive=positive) <= 1


def test_a_fitted_temperature_tells_its_losses():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (400, 4))
    labels = np.where(rng.random(400) < 0.6, logits.argmax(axis=1), rng.integers(0, 4, 400))
    fit = calibrators.fit_temperature(logits, labels)
    assert fit.temperature > 0
    assert fit.nll_after < fit.nll_before
    assert tuple(inspect.signature(calibrators.fit_temperature).parameters)[:2] == ("logits", "labels")


@pytest.fixture
def study(toy_store, tmp_path):
    root = tmp_path / "cache"
    top = np.array(["pose", "background", ""], dtype=object)[np.arange(200) % 3]
    factors = {name: (top == name).astype(np.int64) for name in FACTORS[:2]}
    toy_store(cache=root, metadata={**factors, "top_factor": top})
    toy_store(cache=root, dataset="far", role="ood", n=60)
    names = ("cat", "dog", "car", "cup")
    shape = np.arange(80) % 4
    texture = (np.arange(80) // 4) % 4
    metadata = {"shape": [names[i] for i in shape], "texture": [names[i] for i in texture]}
    card = {"class_names": names}
    toy_store(cache=root, dataset="cue", role="shift", n=80, n_classes=4, labels=shape, card=card, metadata=metadata)
    return root


def test_names_of_the_table_stay(study, tmp_path):
    assert main(["metrics", str(study), "-o", str(tmp_path / "r.parquet")]) == 0
    table = read_results(tmp_path / "r.parquet")
    computed = set(table.filter(pl.col("value").is_not_null())["metric"])
    assert computed >= IN_THE_TABLE
    assert set(VARIANT_COLUMNS) <= set(table.columns)
    changed = tmp_path / "analysis.toml"
    changed.write_text("[calibration]\nbins = 10\n")
    assert main(["metrics", str(study), "-o", str(tmp_path / "s.parquet"), "--config", str(changed)]) == 0
    options = read_results(tmp_path / "s.parquet").filter(pl.col("metric") == "ece", pl.col("factor") == "")["options"]
    assert set(options) == {'{"bins":10}'}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("metrics", ["CACHE", "--only", "x", "--models", "x", "--datasets", "x", "--config", "analysis.toml"]),
        ("factors", ["CACHE", "--annotations", "imagenet-x", "--factor-labels", "top", "--keep-prototypes", "-o", "F"]),
        ("factors", ["CACHE", "--annotations", "PATH", "--factor-labels", "multi"]),
        ("summarize", ["CACHE"]),
        ("compare", ["CACHE", "MODEL_A", "MODEL_B"]),
        ("show", ["CACHE", "MODEL"]),
    ],
)
def test_commands_stay(command, words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"analyze.commands.{command}").add_arguments(parser)
    assert parser.parse_args(words).cache == "CACHE"
