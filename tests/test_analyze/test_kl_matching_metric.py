"""KL-matching as a number of the result table: fitted on the ID set's fit half, by the definition in float64."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import rel_entr, softmax
from sklearn import metrics as sk

import cache_schema
from analyze.calibrators import fit_rows
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.fits import FITS
from analyze.settings import study_defaults
from analyze.suites.scores import SCORES

WITH_KLM = study_defaults().updated("ood", scores=["msp", "klm", "tempscale"])


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "klm"
    valid = np.arange(500) != 3
    toy_store(cache=root, n=500, valid=valid, n_classes=8)
    toy_store(cache=root, dataset="near", role="ood", n=150, n_classes=8, card={"distance": "near"})
    toy_store(cache=root, dataset="wide", role="ood", n=40, n_classes=9, card={"distance": "far"})
    return cache_schema.open_cache(root)


def klm(p, typical):
    return -np.array([[rel_entr(row, q).sum() for q in typical] for row in p]).min(axis=1)


def one(table, dataset, metric, score="klm"):
    found = table.filter(pl.col("dataset") == dataset, pl.col("metric") == metric, pl.col("score") == score)
    return found.row(0, named=True)


def test_equals_the_definition_on_the_held_out_half(cache):
    table = evaluate(cache, settings=WITH_KLM, only=["detection"]).table
    store = cache.store("m", "val")
    rows = fit_rows(store.labels, usable=store.valid)
    p = softmax(store.logits().astype(np.float64)[store.valid], axis=1)
    fitted = rows[store.valid]
    predicted = p[fitted].argmax(axis=1)
    typical = [p[fitted][predicted == c].mean(axis=0) for c in np.unique(predicted)]
    inside = klm(p[~fitted], typical)
    outside = klm(softmax(cache.store("m", "near").logits().astype(np.float64), axis=1), typical)
    truth = np.repeat([1, 0], [inside.size, outside.size])
    found = one(table, "near", "auroc")
    assert found["value"] == pytest.approx(sk.roc_auc_score(truth, np.concatenate([inside, outside])), abs=2e-5)
    assert found["n"] == inside.size + outside.size
    assert found["options"] == '{"fit":"validation:val:0.5"}'
    assert found["value"] != one(table, "near", "auroc", "msp")["value"]
    assert "the logits of wide are over other classes (" in one(table, "wide", "auroc")["reason"]
    # The mean over the far sets has a reason too.
    far = table.filter(pl.col("subset") == "far", pl.col("score") == "klm", pl.col("metric") == "auroc")
    assert far["reason"].to_list() == ["no auroc on wide"]


def test_summaries_keep_the_score_or_say_where_it_would_come_from(cache, tmp_path):
    heavy = evaluate(cache, settings=WITH_KLM, only=["detection"]).table
    assert summarize_cache(cache, tmp_path / "s", settings=WITH_KLM).failures == {}
    light = evaluate(cache_schema.open_cache(tmp_path / "s"), settings=WITH_KLM, only=["detection"]).table
    assert one(light, "near", "auroc")["value"] == one(heavy, "near", "auroc")["value"]
    assert summarize_cache(cache, tmp_path / "t", settings=study_defaults()).failures == {}
    bare = cache_schema.open_cache(tmp_path / "t")
    table = evaluate(bare, settings=WITH_KLM, only=["detection"]).table
    assert "needs the big stores" in one(table, "near", "auroc")["reason"]
    other = WITH_KLM.updated("split", seed=9)
    table = evaluate(cache_schema.open_cache(tmp_path / "s"), settings=other, only=["detection"]).table
    assert "another split" in one(table, "near", "auroc")["reason"]


def test_without_an_id_half_there_is_a_reason(toy_store, tmp_path):
    toy_store(cache=tmp_path / "c", n=2, labels=np.array([0, 1]), valid=np.array([True, False]))
    toy_store(cache=tmp_path / "c", dataset="far", role="ood", n=20)
    table = evaluate(cache_schema.open_cache(tmp_path / "c"), settings=WITH_KLM, only=["detection"]).table
    assert "nothing to fit on" in one(table, "far", "auroc")["reason"]


def test_every_score_declares_what_it_needs():
    allowed = {"logits", "raw logits", "logit scale"}
    for name, spec in SCORES.items():
        assert spec.needs
        assert set(spec.needs) <= allowed, name
        assert set(spec.options) <= set(study_defaults()["ood"]), name
    assert {name: spec.fit for name, spec in SCORES.items() if spec.fit} == {"klm": "klm", "tempscale": "temperature"}
    assert all(spec.fit in FITS for spec in SCORES.values() if spec.fit)
