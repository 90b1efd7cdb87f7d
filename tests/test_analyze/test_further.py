"""Metrics that are computed where they are named: their values, their intervals, and that nobody else sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import cache_schema
from analyze import metrics
from analyze.evaluate import evaluate
from analyze.intervals import bootstrap as resampled
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.detection_points import eer_interval
from analyze.intervals.means import mean_interval
from analyze.settings import study_defaults
from analyze.suites.detection import FURTHER
from analyze.suites.further import METRICS, skill_parts

N = 400


@pytest.fixture
def cache(toy_store: Any, tmp_path: Any) -> Any:
    root = tmp_path / "cache"
    toy_store(cache=root, n=N, skill=1.5)
    toy_store(cache=root, n=150, dataset="v2", role="shift")
    toy_store(cache=root, n=120, dataset="far", role="ood")
    return cache_schema.open_cache(root)


def numbers(table: pl.DataFrame, dataset: str, **variant: str) -> dict[str, float]:
    rows = table.filter(pl.col("dataset") == dataset, *[pl.col(k) == v for k, v in variant.items()])
    return dict(zip(rows["metric"], rows["value"], strict=True))


def test_they_are_computed_where_they_are_named_alone(cache: Any) -> None:
    plain = evaluate(cache).table
    asked_for_by_option = {*FURTHER, "conformal_class_gap", "conformal_worst_class", "conformal_size_violation"}
    assert not (set(METRICS) | asked_for_by_option) & set(plain["metric"])
    table = evaluate(cache, only=["further"]).table
    assert set(table["metric"]) == set(METRICS)
    one = evaluate(cache, only=["d2_brier", "top1"]).table
    assert set(one["metric"]) == {"d2_brier", "top1"}
    for dataset in ("val", "v2"):
        store = cache.store("m", dataset)
        z, labels = store.logits().astype(np.float64), store.labels
        p = softmax(z, axis=1)
        confidence, predicted = p.max(axis=1), p.argmax(axis=1)
        right = predicted == labels
        wanted = {
            "e_augrc": metrics.e_augrc(confidence, right),
            "achievable_aurc": metrics.achievable_aurc(confidence, right),
            "balanced_aurc": metrics.balanced_aurc(confidence, right, labels, n_classes=10),
            "balanced_augrc": metrics.balanced_augrc(confidence, right, labels, n_classes=10),
            "top_label_ece": metrics.top_label_calibration_error(confidence, right, predicted),
            "d2_log_loss": metrics.d2_log_loss(z, labels),
            "d2_brier": metrics.d2_brier(p, labels),
            "worst_classes_accuracy10": metrics.worst_classes_accuracy(right, labels, n_classes=10, least=5),
        }
        assert numbers(table, dataset) == pytest.approx(wanted, abs=2e-5)
    has = table["low"].is_not_null()
    assert set(table.filter(has)["metric"]) <= {"d2_log_loss", "d2_brier", "e_augrc"}
    assert table.filter(~has)["interval"].str.starts_with("none: ").all()
    skills = table.filter(has, pl.col("metric") != "e_augrc")
    assert set(skills["dataset"]) == {"val"}  # 150 rows are too few for an unbounded mean


def test_the_excess_has_the_interval_of_a_bootstrap_without_one(cache: Any) -> None:
    table = evaluate(cache, only=["e_augrc"]).table
    row = table.filter(pl.col("dataset") == "val").row(0, named=True)
    assert row["low"] < row["value"] < row["high"]
    assert row["interval"] == "jackknife 95 %"
    store = cache.store("m", "val")
    p = softmax(store.logits().astype(np.float64), axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == store.labels
    drawn = resampled(metrics.e_augrc, confidence, right, rng=np.random.default_rng(0), replicates=600)
    assert (row["high"] - row["low"]) / 2 / 1.96 == pytest.approx(drawn.std(), rel=0.15)


def test_further_detection_and_groups_of_conformal_sets_by_option(cache: Any) -> None:
    settings = study_defaults().updated("ood", scores=["msp"], further=["eer", "partial_auroc10"])
    table = evaluate(cache, only=["detection"], settings=settings).table
    inside, outside = (
        softmax(cache.store("m", d).logits().astype(np.float64), axis=1).max(axis=1) for d in ("val", "far")
    )
    found = numbers(table, "far", score="msp")
    assert found["eer"] == pytest.approx(metrics.equal_error_rate(inside, outside), abs=1e-3)
    assert found["partial_auroc10"] == pytest.approx(metrics.partial_auroc(inside, outside, max_fpr=0.1), abs=1e-3)
    means = table.filter(pl.col("metric") == "eer", pl.col("subset") == "all")
    assert means["value"][0] == found["eer"]
    sides = [SortedScores.of(side) for side in (inside, outside)]
    rates = table.filter(pl.col("metric") == "eer")
    wanted = eer_interval(*sides)
    assert len(rates) > 1  # a set, and means over one set
    assert rates["low"].to_list() == pytest.approx([wanted.low] * len(rates), abs=2e-3)
    assert rates["high"].to_list() == pytest.approx([wanted.high] * len(rates), abs=2e-3)
    areas = table.filter(pl.col("metric") == "partial_auroc10")
    assert areas["interval"].str.contains("^none: (far: )?[0-9]+ OOD rows within 10 % FPR, at least 50").all()
    settings = study_defaults().updated("conformal", groups=True, methods=["aps"])
    table = evaluate(cache, only=["conformal"], settings=settings).table
    found = numbers(table, "v2")
    assert 0 <= found["conformal_worst_class"] <= found["conformal_coverage"]
    assert 0 < found["conformal_class_gap"] <= 0.9
    assert found["conformal_size_violation"] >= abs(found["conformal_coverage"] - 0.9) - 1e-9


@given(seed=st.integers(0, 2**32 - 1), logarithmic=st.booleans())
def test_the_influence_of_an_image_is_the_derivative_by_its_weight(seed: int, logarithmic: bool) -> None:
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    labels[:2] = 0, 1
    p = softmax(z, axis=1)
    if logarithmic:
        losses = -log_softmax(z, axis=1)[np.arange(60), labels]
    else:
        losses = ((p - np.eye(4)[labels]) ** 2).sum(axis=1)
    value, influence = skill_parts(losses, labels, logarithmic=logarithmic)
    function, scores = (metrics.d2_log_loss, z) if logarithmic else (metrics.d2_brier, p)
    assert value == pytest.approx(function(scores, labels))
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    for row in rng.integers(0, 60, 3):
        step = 1e-5
        up, down = (np.where(np.arange(60) == row, 1 + s, 1.0) for s in (step, -step))
        slope = (function(scores, labels, weights=up) - function(scores, labels, weights=down)) / (2 * step)
        assert influence[row] == pytest.approx(60 * slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("n", [300, 3000])
def test_intervals_of_skill_cover_as_often_as_they_promise(logarithmic: bool, n: int) -> None:
    rng = np.random.default_rng(n)
    shares = np.array([0.4, 0.3, 0.2, 0.1])

    def draw(size: int) -> tuple[Any, Any]:
        labels = rng.choice(4, size, p=shares)
        z = rng.normal(size=(size, 4)) * 1.5
        z[np.arange(size), labels] += 1.5
        log_p = log_softmax(z, axis=1)
        squares = ((np.exp(log_p) - np.eye(4)[labels]) ** 2).sum(axis=1)
        return (-log_p[np.arange(size), labels] if logarithmic else squares), labels

    losses, _ = draw(2_000_000)
    null = -(shares * np.log(shares)).sum() if logarithmic else 1 - (shares**2).sum()
    truth = 1 - losses.mean() / null
    held = 0
    for _ in range(1000):
        value, influence = skill_parts(*draw(n), logarithmic=logarithmic)
        found = mean_interval(value + influence, bounded=False)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 1000 <= 0.97, held
