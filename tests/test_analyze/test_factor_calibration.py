"""Calibration by factor against scipy on the factor's rows, before and after the temperature; intervals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax
from scipy.stats import bootstrap as scipy_bootstrap

import cache_schema
from analyze import metrics
from analyze.annotations import FACTORS
from analyze.calibrators import fit_rows, fit_temperature_store
from analyze.evaluate import evaluate
from analyze.intervals.means import mean_interval
from analyze.metrics.registry import METRICS
from analyze.settings import study_defaults
from analyze.suites.factors import CALIBRATION

N = 400


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "factors"
    top = np.array(["pose", "background", "color", ""], dtype=object)[np.minimum(np.arange(N) % 7, 3)]
    top[np.arange(N) % 100 == 5] = "color"
    prototype = (np.arange(N) < 30).astype(np.int64)
    metadata = {name: (top == name).astype(np.int64) for name in FACTORS[:4]} | {"prototype": prototype}
    kind = np.array(["a", "b"], dtype=object)[(np.arange(N) % 9 == 0).astype(int)]
    toy_store(cache=root, n=N, metadata={**metadata, "top_factor": top, "kind": kind})
    toy_store(cache=root, n=60, dataset="v2", role="shift", metadata={"kind": kind[:60]})
    return cache_schema.open_cache(root)


def one(table, metric, factor, dataset="val", **variant):
    given = {"calibrator": "", "subset": "", **variant}
    found = table.filter(
        pl.col("dataset") == dataset,
        pl.col("metric") == metric,
        pl.col("factor") == factor,
        *[pl.col(k) == v for k, v in given.items()],
    )
    assert len(found) == 1, (metric, factor, found)
    return found.row(0, named=True)


def expected(logits, labels):
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    right = p.argmax(axis=1) == labels
    rows = np.arange(len(labels))
    return {
        "ece": np.array([metrics.expected_calibration_error(p.max(axis=1), right)]),
        "calibration_gap": p.max(axis=1) - right,
        "nll": -log_p[rows, labels],
        "brier": ((p - np.eye(p.shape[1])[labels]) ** 2).sum(axis=1),
        **{
            name: np.array([METRICS[name].function(p.max(axis=1), right)])
            for name in ("ece_debiased", "ece_if_calibrated", "ece_p")
        },
    }


@pytest.mark.parametrize("factor", ["pose", "color"])
def test_by_factor_before_and_after_the_temperature(cache, factor):
    table = evaluate(cache, only=["factors"]).table
    store = cache.store("m", "val")
    member = (store.metadata["top_factor"] == factor) & (store.metadata["prototype"] == 0)
    rows = fit_rows(store.labels)
    temperature = fit_temperature_store(store, rows).temperature
    z, y = store.logits(), store.labels
    for chosen, scale, variant in (
        (member, 1.0, {}),
        (member & ~rows, 1.0, {"subset": "held-out"}),
        (member & ~rows, temperature, {"calibrator": "temperature"}),
    ):
        want = expected(z[chosen] / scale, y[chosen])
        for metric in CALIBRATION:
            found = one(table, metric, factor, **variant)
            assert found["n"] == chosen.sum()
            assert found["value"] == pytest.approx(want[metric].mean(), rel=2e-5, abs=1e-6), (metric, variant)
            if metric.startswith("ece"):
                continue
            values = want[metric]
            least = 200 if metric == "nll" else 40
            if values.size < least:
                assert found["low"] is None
                assert found["interval"] == f"none: {values.size} rows, at least {least} are needed"
                continue
            interval = mean_interval(values, bounded=metric != "nll")
            assert found["low"] == pytest.approx(interval.low, rel=1e-4, abs=1e-6)
            assert found["high"] == pytest.approx(interval.high, rel=1e-4)
    assert one(table, "nll", factor, calibrator="temperature")["id_dataset"] == "val"


def test_values_of_any_column_get_the_same(cache):
    options = study_defaults().updated("factors", columns=["kind"])
    table = evaluate(cache, settings=options, only=["factors"]).table
    store = cache.store("m", "v2")
    member = store.metadata["kind"] == "b"
    want = expected(store.logits()[member], store.labels[member])
    for metric in CALIBRATION:
        found = one(table, metric, "kind=b", "v2")
        assert found["value"] == pytest.approx(want[metric].mean(), rel=2e-5, abs=1e-6)
    assert one(table, "nll", "kind=b", "v2", calibrator="temperature")["value"] is not None
    worst = table.filter(pl.col("metric") == "worst_factor_accuracy", pl.col("dataset") == "v2").row(0, named=True)
    accuracies = table.filter(pl.col("metric") == "factor_accuracy", pl.col("dataset") == "v2")
    assert worst["value"] == accuracies["value"].min()
    assert '"column":"kind"' in worst["options"]


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap(cache):
    table = evaluate(cache, only=["factors"]).table
    gaps = one(table, "calibration_gap", "background")
    store = cache.store("m", "val")
    member = (store.metadata["top_factor"] == "background") & (store.metadata["prototype"] == 0)
    values = expected(store.logits()[member], store.labels[member])["calibration_gap"]
    theirs = scipy_bootstrap((values,), np.mean, rng=np.random.default_rng(0), method="percentile")
    assert gaps["high"] - gaps["low"] == pytest.approx(
        theirs.confidence_interval.high - theirs.confidence_interval.low, rel=0.15
    )


def test_without_a_temperature_there_is_a_reason(toy_store, tmp_path):
    kind = np.arange(60) % 2
    toy_store(cache=tmp_path / "c", n=60, dataset="v2", role="shift", metadata={"kind": kind})
    options = study_defaults().updated("factors", columns=["kind"])
    table = evaluate(cache_schema.open_cache(tmp_path / "c"), settings=options, only=["factors"]).table
    assert "no in-distribution set" in one(table, "nll", "kind=1", "v2", calibrator="temperature")["reason"]
    plain = options.updated("calibrators", methods=[])
    table = evaluate(cache_schema.open_cache(tmp_path / "c"), settings=plain, only=["factors"]).table
    assert table.filter(pl.col("calibrator") != "").is_empty()
