"""Finding stores by name: listing, nearest names, ambiguity, damage beside healthy stores, failures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema import DatasetCard, ModelCard
from cache_schema.format import failures
from cache_schema.format.naming import published
from cache_schema.writing.validate import cache_problems
from closerlook_common.errors import StoreNotFoundError, UserError

Write = Callable[..., cache_schema.PredictionStore]


@pytest.fixture
def cache(write: Write, model: ModelCard, dataset: DatasetCard, tmp_path: Path) -> cache_schema.Cache:
    """Two models, two datasets, one summary."""
    other = ModelCard(id="resnet50.a1_in1k", group="supervised-in1k")
    write()
    write(dataset=replace(dataset, id="imagenet-a", role="shift"), backend="hdf5")
    write(model=other)
    cache_schema.write_summary(
        tmp_path / "cache", model=other, dataset=dataset, columns={"confidence": np.ones(3, np.float32)}
    )
    return cache_schema.open_cache(tmp_path / "cache")


def test_listing(cache: cache_schema.Cache) -> None:
    assert [card.id for card in cache.models()] == ["ViT-B-32/openai", "resnet50.a1_in1k"]
    assert [card.id for card in cache.datasets()] == ["imagenet", "imagenet-a"]
    assert {store.kind for store in cache.stores()} == {"predictions", "summary"}
    assert len(cache.stores()) == 4
    assert [store.kind for store in cache.stores("summary")] == ["summary"]
    assert cache.store("ViT-B-32/openai", "imagenet-a").dataset.role == "shift"
    assert len(cache.summary("resnet50.a1_in1k", "imagenet")) == 3
    assert cache.stores()[0] is cache.stores()[0]  # a header is read once


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda cache: cache.store("ViT-B-32/opnai", "imagenet"), "did you mean ViT-B-32/openai"),
        (lambda cache: cache.store("resnet50.a1_in1k", "imagenett"), "did you mean imagenet"),
        (lambda cache: cache.summary("ViT-B-32/openai", "imagenet"), "has no summary store"),
        (
            lambda cache: cache.head("resnet50.a1_in1k", "imagenet-1k"),
            "has no head of model 'resnet50.a1_in1k'",
        ),
        (lambda cache: cache.reference("resnet50.a1_in1k", "train"), "has no reference store"),
        (lambda cache: cache.texts("resnet50.a1_in1k", "pairs"), "has no texts store"),
    ],
)
def test_what_is_not_there(cache: cache_schema.Cache, call: Callable[[Any], Any], what: str) -> None:
    with pytest.raises(StoreNotFoundError, match=what) as caught:
        call(cache)
    assert "\n" not in str(caught.value)


def test_no_such_cache_or_kind(tmp_path: Path, cache: cache_schema.Cache) -> None:
    with pytest.raises(UserError, match=r"no cache at .*; did you mean cache"):
        cache_schema.open_cache(tmp_path / "cach")
    with pytest.raises(UserError, match="no kind of store 'heads'; did you mean head"):
        cache.stores("heads")


def test_two_stores_of_one_pair_must_be_stated_apart(cache: cache_schema.Cache, write: Write) -> None:
    half = write(record={"precision": "bf16"})
    with pytest.raises(UserError, match=r"2 predictions store.*name one by its identity"):
        cache.store("ViT-B-32/openai", "imagenet")
    assert cache.store("ViT-B-32/openai", "imagenet", identity=half.identity[:8]).path == half.path


def test_a_new_store_is_seen_and_a_deleted_one_is_gone(cache: cache_schema.Cache, write: Write) -> None:
    late = write(dataset=DatasetCard(id="late"), backend="hdf5")
    assert cache.store("ViT-B-32/openai", "late").digest == late.digest
    late.path.unlink()
    with pytest.raises(StoreNotFoundError):
        cache.store("ViT-B-32/openai", "late")


def test_one_bad_store_does_not_stop_the_others(cache: cache_schema.Cache) -> None:
    bad = cache.store("resnet50.a1_in1k", "imagenet").path
    text = (bad / "zarr.json").read_text()
    (bad / "zarr.json").write_text(text.replace("resnet50", "resnet51"))
    fresh = cache_schema.open_cache(cache.path)
    for view in (cache, fresh):
        assert len(view.stores()) == 3
        (refused,) = view.refused()
        assert refused.path == bad
        assert "not those that were sealed" in refused.reason
    (bad / "zarr.json").write_text(text)
    assert len(cache.stores()) == 4
    assert cache.refused() == []


def test_heads_by_prompt_set(tmp_path: Path, model: ModelCard, write: Write) -> None:
    def head(prompt_set: str, **more: Any) -> cache_schema.HeadStore:
        return cache_schema.write_head(
            tmp_path / "cache",
            model=model,
            class_space="in1k",
            class_names=["a", "b"],
            weight=np.eye(2),
            prompt_set=prompt_set,
            templates=(prompt_set + " {}",),
            logit_scale=2.0,
            **more,
        )

    one = head("simple")
    cache = cache_schema.open_cache(tmp_path / "cache")
    assert cache.head(model.id, "in1k").identity == one.identity
    two = head("openai-80")
    with pytest.raises(UserError, match="several heads for in1k: prompt sets 'openai-80', 'simple'; name one"):
        cache.head(model.id, "in1k")
    assert cache.head(model.id, "in1k", "simple").identity == one.identity
    with pytest.raises(StoreNotFoundError, match="it has the prompt sets 'openai-80', 'simple'"):
        cache.head(model.id, "in1k", "simpl")
    with pytest.raises(StoreNotFoundError, match="it has heads for in1k"):
        cache.head(model.id, "in21k")
    write(record={"head_identity": two.identity})  # the stored logits were computed with it
    assert cache.head(model.id, "in1k").identity == two.identity
    three = head("best", default=True)
    assert cache.head(model.id, "in1k").identity == three.identity
    assert len(cache.heads(model.id)) == 3


def test_a_thousand_stores_by_their_headers_alone(write: Write, tmp_path: Path) -> None:
    """Only ``zarr.json`` is there of most of them: nothing else may be touched."""
    header = (write().path / "zarr.json").read_bytes()
    hdf5 = write(backend="hdf5", dataset=DatasetCard(id="other")).path
    for i in range(500):
        folder = tmp_path / "many" / f"model{i % 100}"
        (folder / f"d{i}-00000000.zarr").mkdir(parents=True)
        (folder / f"d{i}-00000000.zarr" / "zarr.json").write_bytes(header)
        (folder / f"e{i}-00000000.h5").hardlink_to(hdf5)
    stores = cache_schema.open_cache(tmp_path / "many").stores()
    assert len(stores) == 1000
    assert {store.dataset.id for store in stores} == {"imagenet", "other"}


def test_published(cache: cache_schema.Cache) -> None:
    store = cache.store("ViT-B-32/openai", "imagenet-a")
    assert published(cache.path, "predictions", "ViT-B-32/openai", "imagenet-a", store.identity) == store.path
    assert published(cache.path, "predictions", "ViT-B-32/openai", "imagenet-a", "0" * 64) is None


def test_failures(cache: cache_schema.Cache) -> None:
    assert cache.failures() == []
    cache_schema.record_failure(cache.path, "ViT-B-32/openai", "imagenet-c", "out of\n memory")
    cache_schema.record_failure(cache.path, "broken/model", "", "no weights")
    cache_schema.record_failure(cache.path, "broken/model", "", "no weights at all")
    found = {(failure.model, failure.dataset): failure.reason for failure in cache.failures()}
    assert found == {
        ("ViT-B-32/openai", "imagenet-c"): "out of memory",
        ("broken/model", ""): "no weights at all",
    }
    path = next(cache.path.glob("*/failures/imagenet-c.json"))
    path.write_text(path.read_text().replace("memory", "money!"))
    assert any("not those that were sealed" in failure.reason for failure in cache.failures())
    cache_schema.clear_failure(cache.path, "ViT-B-32/openai", "imagenet-c")
    cache_schema.clear_failure(cache.path, "broken/model", "")
    cache_schema.clear_failure(cache.path, "broken/model", "never there")
    assert cache.failures() == []
    assert len(cache.stores()) == 4


def test_a_store_behind_a_broken_link_is_refused_and_one_that_is_gone_is_not(
    cache: cache_schema.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unmounted disk is reported; what another run has removed since it was listed is not."""
    names = cache.place.names()
    store = cache.path / names[0]
    away = store.rename(cache.path.parent / "away")
    store.symlink_to(cache.path.parent / "unmounted")
    assert [refused.path for refused in cache.refused()] == [store]
    assert len(cache.stores()) == 3
    store.unlink()
    monkeypatch.setattr(cache.place, "names", lambda: names)  # it was there a moment ago
    assert cache.refused() == []
    away.rename(store)
    assert len(cache.stores()) == 4


@pytest.mark.parametrize("when", ["the folder is listed", "the records are read"])
def test_a_failure_may_be_cleared_while_it_is_looked_for(
    cache: cache_schema.Cache, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """By a run beside this one whose job has succeeded since."""
    cache_schema.record_failure(cache.path, "ViT-B-32/openai", "imagenet-c", "out of memory")
    scandir, read = os.scandir, failures.read_plain

    def clear(path: Any) -> None:
        if "failures" in os.fspath(path):
            cache_schema.clear_failure(cache.path, "ViT-B-32/openai", "imagenet-c")

    if when == "the folder is listed":
        monkeypatch.setattr(os, "scandir", lambda path: clear(path) or scandir(path))
    else:
        monkeypatch.setattr(failures, "read_plain", lambda path, most: clear(path) or read(path, most))
    assert cache.failures() == []
    cache_schema.record_failure(cache.path, "ViT-B-32/openai", "imagenet-c", "out of memory")
    assert list(cache_problems(cache.path)) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"labels": np.full(70, 10)}, "row 0 has label 10; labels are -1 .none. to 9"),
        ({"labels": np.arange(69)}, "labels are int64"),
        ({"labels": np.ones(70)}, "labels are float64"),
        ({"image_ids": ["a"] * 70}, "rows 0 and 1 have the same image id 'a'"),
        ({"image_ids": ["a"]}, "1 image ids for 70 images"),
        ({"image_ids": ["", *map(str, range(69))]}, "image id of row 0 is empty"),
        ({"image_ids": ["\udcff", *map(str, range(69))]}, "not valid Unicode"),
        ({"metadata": {"pose": ["a"]}}, "column 'pose' has 1 row, the store 70"),
        ({"metadata": {"pose": [None] * 70}}, "column 'pose': row 0 is None"),
        ({"metadata": {"pose": np.full(70, 2**63, np.uint64)}}, "column 'pose' is uint64"),
        (
            {
                "logits": np.zeros((0, 10), np.float32),
                "features": None,
                "labels": None,
                "image_ids": [],
                "valid": None,
                "metadata": None,
            },
            "the dataset has no images",
        ),
        ({"logits": np.zeros(70, np.float32)}, "not .images, width"),
        ({"logits": np.zeros((70, 10), int)}, "logits are int64"),
        ({"features": np.zeros((69, 6), np.float32)}, "70 rows of logits, 69 of features"),
        ({"logits": None, "features": None}, "give logits, features or both"),
        ({"logits_kind": "probabilities"}, "store probabilities as log_probabilities"),
        ({"features_dtype": "bfloat16"}, "features_dtype 'bfloat16'"),
        ({"backend": "hdf"}, "did you mean hdf5"),
        ({"record": {"rate": float("nan")}}, "record.rate is nan"),
        ({"dataset": DatasetCard(id="a", class_mask=(1, 10))}, "keeps class 10, there are 10 logits"),
        ({"features": np.full((70, 6), np.inf, np.float32)}, "infinite feature"),
        ({"logits": np.full((70, 10), np.nan, np.float32)}, "is marked valid but holds NaN"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    write: Write, changes: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=what):
        write(**changes)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rows_with_nan_are_invalid_where_no_mask_is_given(write: Write, outputs: dict[str, Any]) -> None:
    logits, features = outputs["logits"].copy(), outputs["features"].copy()
    logits[2, 3] = features[9, 0] = np.nan
    store = write(logits=logits, features=features, valid=None)
    assert np.flatnonzero(~store.valid).tolist() == [2, 9]
    assert store.details["n_valid"] == 68
    assert np.isnan(store.features()[2]).all()
    assert np.isnan(store.logits()[9]).all()


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opencache'"):
        _ = cache_schema.opencache
    assert "open_cache" in dir(cache_schema)
    for name in dir(cache_schema):
        assert getattr(cache_schema, name) is not None
