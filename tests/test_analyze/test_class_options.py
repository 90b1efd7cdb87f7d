"""Subsets and super-classes as options: lifted, replaced, stated in the rows, and checked against summaries."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax

import cache_schema
from analyze.cli import main
from analyze.evaluate import evaluate
from analyze.evaluate.compare import compare_models
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import study_defaults

MASK = (1, 4, 6, 8)
MAP = ((0, 1, 2), (4, 6), (9,))
ALL = study_defaults().updated("classes", masks=False)
MEAN = study_defaults().updated("classes", map_rule="mean")


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "classes"
    for seed, model in enumerate(("m", "other")):
        toy_store(cache=root, model=model, seed=seed)
        own = np.array(MASK)[np.arange(90) % 4]
        toy_store(cache=root, model=model, seed=seed, dataset="few", role="shift", n=90, labels=own,
                  card={"class_mask": MASK, "shift_of": "val"})  # fmt: skip
        kinds = np.arange(60) % 3
        toy_store(cache=root, model=model, seed=seed, dataset="kinds", role="shift", n=60, labels=kinds,
                  card={"class_map": MAP, "shift_of": "val"})  # fmt: skip
    return cache_schema.open_cache(root)


def one(table, dataset, metric, **variant):
    given = {"model": "m", "calibrator": "", "subset": "", "factor": "", **variant}
    found = table.filter(
        pl.col("dataset") == dataset, pl.col("metric") == metric, *[pl.col(k) == v for k, v in given.items()]
    )
    assert len(found) == 1
    return found.row(0, named=True)


def test_masks_can_be_lifted(cache):
    table = evaluate(cache, settings=ALL, only=["accuracy", "calibration"]).table
    store = cache.store("m", "few")
    p = softmax(store.logits().astype(np.float64), axis=1)
    found = one(table, "few", "top1")
    assert found["value"] == (p.argmax(axis=1) == store.labels).mean()
    assert json.loads(found["options"]) == {"masks": False}
    nll = -np.log(p[np.arange(90), store.labels]).mean()
    assert one(table, "few", "nll")["value"] == pytest.approx(nll, rel=1e-6)
    assert one(table, "few", "nll", calibrator="temperature")["value"] is not None
    # Nobody else is concerned.
    plain = evaluate(cache, only=["accuracy"]).table
    for dataset in ("val", "kinds"):
        assert one(table, dataset, "top1") == one(plain, dataset, "top1")
    assert one(plain, "few", "top1")["value"] > found["value"]


def test_the_rule_of_super_classes_can_be_replaced(cache):
    table = evaluate(cache, settings=MEAN, only=["accuracy"]).table
    store = cache.store("m", "kinds")
    p = softmax(store.logits().astype(np.float64), axis=1)
    mean = np.stack([p[:, list(group)].mean(axis=1) for group in MAP], axis=1)
    found = one(table, "kinds", "top1")
    assert found["value"] == (mean.argmax(axis=1) == store.labels).mean()
    assert json.loads(found["options"]) == {"map_rule": "mean"}
    assert json.loads(one(table, "few", "top1")["options"] or "{}") == {}


def test_summaries_of_other_classes_are_refused(cache, tmp_path):
    assert summarize_cache(cache, tmp_path / "s", settings=study_defaults()).failures == {}
    light = cache_schema.open_cache(tmp_path / "s")
    reason = one(evaluate(light, settings=ALL, only=["accuracy"]).table, "few", "top1")["reason"]
    assert "summarize again" in reason
    assert one(evaluate(light, settings=ALL, only=["accuracy"]).table, "val", "top1")["value"] is not None
    assert summarize_cache(cache, tmp_path / "s", settings=ALL).written > 0
    light = cache_schema.open_cache(tmp_path / "s")
    heavy = evaluate(cache, settings=ALL, only=["accuracy"]).table
    assert one(evaluate(light, settings=ALL, only=["accuracy"]).table, "few", "top1") == one(heavy, "few", "top1")
    assert "summarize again" in one(evaluate(light, only=["accuracy"]).table, "few", "top1")["reason"]


def test_ensembles_follow(cache):
    found, _ = compare_models(cache, ["m", "other"], settings=ALL, datasets=["few"], replicates=10)
    stores = [cache.store(name, "few") for name in ("m", "other")]
    mean = np.mean([softmax(s.logits().astype(np.float64), axis=1) for s in stores], axis=0)
    assert found[0].ensemble["top1"] == (mean.argmax(axis=1) == stores[0].labels).mean()


def test_the_id_sets_on_subsets_are_an_option(cache):
    both = evaluate(cache, only=["subsets"]).table
    assert set(both["subset"]) == {"classes:few", "classes:kinds"}
    without = study_defaults().updated("accuracy", on_subsets=False)
    assert evaluate(cache, settings=without, only=["subsets"]).table.is_empty()
    boot = study_defaults().updated("bootstrap", replicates=50)
    table = evaluate(cache, settings=boot, only=["subsets"]).table.filter(pl.col("metric") == "nll")
    assert (table["low"] < table["high"]).all()


@pytest.mark.parametrize("role", ["id", "shift"])
def test_labels_that_the_mask_leaves_out_are_named(toy_store, tmp_path, capsys, role):
    """They were counted as images that cannot be read; now the set's rows say what is wrong."""
    labels = np.random.default_rng(3).choice([1, 4, 6], 90)
    labels[[7, 30]] = 2
    toy_store(cache=tmp_path / "c", dataset="val", n=120)
    toy_store(cache=tmp_path / "c", dataset="part", role=role, n=90, labels=labels, card={"class_mask": (1, 4, 6)})
    main(["metrics", str(tmp_path / "c"), "-o", str(tmp_path / "r.parquet"), "--only", "top1,invalid_images,ece"])
    table = pl.read_parquet(tmp_path / "r.parquet")
    part = table.filter(pl.col("dataset") == "part")
    assert len(part) >= 3
    assert part["value"].is_null().all()
    assert (
        part["reason"]
        .str.contains(r"2 of 90 images have a label that the class mask leaves out \(row 7: class 2\)")
        .all()
    )
    top1 = table.filter((pl.col("dataset") == "val") & (pl.col("metric") == "top1"))
    assert top1["value"].is_not_null().all()
    capsys.readouterr()
