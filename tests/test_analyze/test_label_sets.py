"""Several acceptable labels an image: ReaL accuracy as a row, and a dataset whose labels are sets."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from analyze.annotations.label_sets import parse, rank_of_set
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import study_defaults
from closerlook_common.errors import UserError


def sets_of(labels, seed=0):
    """An acceptable set an image, some empty, that mostly holds the label."""
    rng = np.random.default_rng(seed)
    found = []
    for label in labels:
        others = rng.choice(10, rng.integers(0, 3), replace=False)
        own = [int(label)] if rng.random() < 0.9 else []
        found.append(sorted({*own, *map(int, others)}) if rng.random() < 0.95 else [])
    return found


def one(table, dataset, metric, **variant):
    given = {"score": "", "calibrator": "", "subset": "", "factor": "", **variant}
    found = table.filter(
        pl.col("dataset") == dataset, pl.col("metric") == metric, *[pl.col(k) == v for k, v in given.items()]
    )
    assert len(found) == 1, (metric, found)
    return found.row(0, named=True)


def as_text(sets):
    return np.array([" ".join(map(str, s)) for s in sets], dtype=object)


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "real"
    labels = np.random.default_rng(1200).integers(0, 10, 200)
    sets = sets_of(labels)
    valid = np.arange(200) != 7
    toy_store(cache=root, dataset="imagenet-val", labels=labels, valid=valid, metadata={"real_labels": as_text(sets)})
    keep = [i for i, s in enumerate(sets) if s]
    first = np.array([sets[i][0] for i in keep])
    own = as_text([sets[i] for i in keep])
    toy_store(cache=root, dataset="imagenet-real", n=len(keep), labels=first, metadata={"label_set": own}, skill=3)
    toy_store(cache=root, dataset="plain", role="shift", n=40)
    return cache_schema.open_cache(root)


def test_real_accuracy_is_a_row_beside_top1(cache):
    table = evaluate(cache, only=["accuracy"]).table
    store = cache.store("m", "imagenet-val")
    predicted = store.logits().argmax(axis=1)
    sets = [set(map(int, text.split())) for text in store.metadata["real_labels"]]
    use = [i for i in range(200) if sets[i] and store.valid[i]]
    found = one(table, "imagenet-val", "multi_label_accuracy")
    assert found["value"] == np.mean([predicted[i] in sets[i] for i in use])
    assert found["n"] == len(use) < 199
    assert found["low"] < found["value"] < found["high"]
    assert json.loads(found["options"]) == {"labels": "real_labels"}
    assert table.filter(pl.col("dataset") == "plain", pl.col("metric") == "multi_label_accuracy").is_empty()


def test_imagenet_without_such_a_column_says_so(toy_store, tmp_path):
    toy_store(cache=tmp_path / "c", card={"class_space": "imagenet-1k"})
    toy_store(cache=tmp_path / "own")
    own = evaluate(cache_schema.open_cache(tmp_path / "own"), only=["accuracy"]).table
    assert "multi_label_accuracy" not in set(own["metric"])
    found = one(evaluate(cache_schema.open_cache(tmp_path / "c")).table, "val", "multi_label_accuracy")
    assert "no metadata column 'real_labels' or 'label_set'" in found["reason"]


def test_a_dataset_of_label_sets_counts_any_of_them_and_has_no_likelihood(cache, tmp_path):
    table = evaluate(cache).table
    store = cache.store("m", "imagenet-real")
    order = np.argsort(-store.logits(), axis=1, kind="stable")
    sets = [set(map(int, text.split())) for text in store.metadata["label_set"]]
    right = np.array([row[0] in s for row, s in zip(order, sets, strict=True)])
    among = np.array([bool(set(row[:5].tolist()) & s) for row, s in zip(order, sets, strict=True)])
    assert one(table, "imagenet-real", "top1")["value"] == right.mean() > 0
    assert one(table, "imagenet-real", "multi_label_accuracy")["value"] == right.mean()
    assert one(table, "imagenet-real", "top5")["value"] == among.mean()
    first = (order[:, 0] == store.labels).mean()
    assert right.mean() > first
    confidence = np.exp(store.logits().astype(np.float64))
    confidence = (confidence / confidence.sum(axis=1, keepdims=True)).max(axis=1)
    assert one(table, "imagenet-real", "calibration_gap")["value"] == pytest.approx((confidence - right).mean())
    for metric in ("nll", "brier", "classwise_ece"):
        assert "several acceptable labels" in one(table, "imagenet-real", metric)["reason"], metric
    calibrated = one(table, "imagenet-real", "ece", calibrator="temperature")
    assert "several acceptable labels" in calibrated["reason"]
    # The other ID set is calibrated as ever.
    assert one(table, "imagenet-val", "ece", calibrator="temperature")["value"] is not None
    assert summarize_cache(cache, tmp_path / "s", settings=study_defaults()).failures == {}
    light = evaluate(cache_schema.open_cache(tmp_path / "s")).table
    keys = ["dataset", "metric", "id_dataset", "score", "calibrator", "subset", "factor", "options"]
    assert light.sort(keys).select(*keys, "value").equals(table.sort(keys).select(*keys, "value"))
    again = light.filter(pl.col("dataset") == "imagenet-real", pl.col("metric") == "nll", pl.col("calibrator") == "")
    assert again["reason"].str.contains("several acceptable labels").all()


@given(st.lists(st.sets(st.integers(0, 6), min_size=1, max_size=3), min_size=1, max_size=8), st.integers(0, 999))
def test_the_rank_of_a_set_is_that_of_its_best_class(sets, seed):
    order = np.stack([np.random.default_rng((seed, i)).permutation(7) for i in range(len(sets))])
    first = np.array([min(s) for s in sets])
    rank = (order == first[:, None]).argmax(axis=1)
    got = rank_of_set(order[:, :5], rank, [tuple(s) for s in sets])
    want = np.array([min(int((row == c).argmax()) for c in s) for row, s in zip(order, sets, strict=True)])
    np.testing.assert_array_equal(np.minimum(got, 5), np.minimum(want, 5))


def test_a_text_that_is_no_list_of_numbers_is_named():
    with pytest.raises(UserError, match="'real_labels', row 1: 'cat' is not a list"):
        parse(np.array(["1 2", "cat"], dtype=object), "real_labels")
