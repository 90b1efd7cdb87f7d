"""The classwise error's bootstrap: every replicate equals the metric on the drawn rows; rows carry the interval."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax

import cache_schema
from analyze import metrics
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.intervals import BootstrapWeights
from analyze.intervals.classwise_replicates import ClasswiseReplicates
from analyze.settings import study_defaults


@pytest.mark.parametrize(("n", "n_classes", "spread"), [
    (300, 5, 3.0), (120, 200, 4.0), (1, 3, 1.0), (2, 2, 1.0), (50, 1, 1.0), (200, 8, 300.0), (90, 70, 0.0),
])  # fmt: skip
@pytest.mark.parametrize("blocks", [1, 3])
def test_replicates_equal_the_metric_on_drawn_rows(n, n_classes, spread, blocks):
    rng = np.random.default_rng(3)
    p = softmax(rng.normal(0, 1, (n, n_classes)) * spread, axis=1)
    labels = np.where(rng.random(n) < 0.6, p.argmax(axis=1), rng.integers(0, n_classes, n))
    weights = BootstrapWeights(n, replicates=12, seed=4).all()
    table = ClasswiseReplicates(n_classes, 15, weights)
    for rows in np.array_split(np.arange(n), blocks):
        table.add(p[rows], labels[rows])
    got = table.errors()
    assert got.shape == (12,)
    for r in range(12):
        rows = np.repeat(np.arange(n), weights[:, r])
        want = metrics.classwise_calibration_error(p[rows], labels[rows])
        assert got[r] == pytest.approx(want, abs=2e-6)


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "c"
    valid = np.arange(300) % 50 != 7
    toy_store(cache=root, n=300, valid=valid)
    toy_store(cache=root, n=120, dataset="few", role="shift", card={"class_mask": (1, 4, 6, 8), "shift_of": "val"},
              labels=np.array([1, 4, 6, 8])[np.arange(120) % 4])  # fmt: skip
    return cache_schema.open_cache(root)


BOOT = study_defaults().updated("bootstrap", replicates=200)


def test_every_classwise_row_has_its_interval(cache, tmp_path):
    table = evaluate(cache, settings=BOOT, only=["classwise_ece"]).table
    assert len(table) == 5  # all, held out and calibrated rows of val; all and calibrated rows of few
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["low"] < table["high"]).all()
    store = cache.store("m", "few")
    p = softmax(store.logits().astype(np.float64)[:, [1, 4, 6, 8]], axis=1)
    labels = np.searchsorted([1, 4, 6, 8], store.labels)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 120, 120) for _ in range(400)]
    errors = [metrics.classwise_calibration_error(p[rows], labels[rows]) for rows in drawn]
    low, high = np.quantile(errors, [0.025, 0.975])
    few = table.filter(pl.col("dataset") == "few", pl.col("calibrator") == "").row(0, named=True)
    assert few["high"] - few["low"] == pytest.approx(high - low, rel=0.2)
    assert few["low"] == pytest.approx(max(2 * few["value"] - high, 0), abs=0.2 * (high - low))


def test_it_can_be_left_out_and_a_summary_keeps_it(cache, tmp_path):
    without = evaluate(cache, settings=BOOT.updated("bootstrap", classwise=False), only=["classwise_ece"]).table
    assert without["value"].is_not_null().all()
    assert without["low"].is_null().all()
    heavy = evaluate(cache, settings=BOOT, only=["classwise_ece"]).table
    assert summarize_cache(cache, tmp_path / "s", settings=BOOT).failures == {}
    light = cache_schema.open_cache(tmp_path / "s")
    keys = ["dataset", "calibrator", "subset"]
    kept = evaluate(light, settings=BOOT, only=["classwise_ece"]).table
    columns = [*keys, "value", "low", "high"]
    assert kept.sort(keys).select(columns).equals(heavy.sort(keys).select(columns))
    # An interval of other replicates is none of this run's.
    other = evaluate(light, settings=BOOT.updated("bootstrap", seed=1), only=["classwise_ece"]).table
    assert other["low"].is_null().all()
