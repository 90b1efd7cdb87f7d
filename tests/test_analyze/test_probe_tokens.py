"""Probes on class tokens and means of patches: equal to scikit-learn's, refused where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import cache_schema
import closerlook
from analyze.cli import main
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from closerlook_common.errors import UserError

C, D, W = 3, 4, 5
CARD = ModelCard(id="clip", library="open_clip", name="ViT", feature_width=D, extra={"n_classes": 0})
PARTS = {"tokens": {"layer": "ln_post"}, "blocks": {"numbers": [2, 5, 8, 11], "of": 12}}
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(C, 2 * W))


def dataset(name: str) -> DatasetCard:
    role = "reference" if name == "train" else "id"
    return DatasetCard(id=name, role=role, class_space="three", n_classes=C, class_names=("a", "b", "c"))


def write(folder: Path, name: str, *, tokens: bool = True, **more: Any) -> cache_schema.PredictionStore:
    rng = np.random.default_rng(len(name))
    labels = np.arange(90) % C
    both = (CENTRES[labels] + rng.normal(size=(90, 2 * W))).astype(np.float16).astype(np.float32)
    blocks = np.stack([both[:, :W] * scale for scale in (0.25, 0.5, 1, 2)], axis=1)
    arrays = {"token_class": both[:, :W], "token_mean": both[:, W:], "block_class": blocks}
    valid = np.ones(90, bool)
    valid[4] = False
    if tokens:
        more = {"parts": PARTS, "arrays": arrays, **more}
    return cache_schema.write_store(
        folder, model=CARD, dataset=dataset(name), features=both[:, :D], labels=labels, valid=valid,
        image_ids=[f"{name}/{i}" for i in range(90)], **more,
    )  # fmt: skip


def rows(store: cache_schema.PredictionStore, *names: str) -> np.ndarray:
    return np.concatenate([store.read(name) for name in names], axis=1)[store.valid].astype(float)


@pytest.mark.parametrize(
    ("features", "names"), [("class", ("token_class",)), ("class+mean", ("token_class", "token_mean"))]
)
def test_a_linear_probe_is_scikit_learns(features: str, names: tuple[str, ...], tmp_path: Path) -> None:
    train, test = write(tmp_path, "train"), write(tmp_path, "test")
    closerlook.probe(tmp_path, reference="train", methods="linear", l2_path=[1.0], features=features)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(rows(train, *names), train.labels[train.valid])
    store = cache_schema.open_cache(tmp_path).store(f"clip[linear:{features}:l2=1]", "test")
    given = rows(test, *names)
    wanted = theirs.decision_function(given)
    got = store.logits()[store.valid]
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got - got.mean(axis=1, keepdims=True), wanted, atol=0.02)
    np.testing.assert_array_equal(store.features()[store.valid], given)
    head = cache_schema.open_cache(tmp_path).head(f"clip[linear:{features}:l2=1]", "three")
    np.testing.assert_allclose(head.weight, theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-4)


def test_neighbours_are_those_of_the_tokens(tmp_path: Path) -> None:
    train, test = write(tmp_path, "train"), write(tmp_path, "test")
    closerlook.probe(tmp_path, reference="train", methods="knn", k=1, features="class")
    store = cache_schema.open_cache(tmp_path).store("clip[knn:class:k=1]", "test")
    bank, query = rows(train, "token_class"), rows(test, "token_class")
    bank, query = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (bank, query))
    nearest = train.labels[train.valid][(query @ bank.T).argmax(axis=1)]
    assert (store.logits()[store.valid].argmax(axis=1) == nearest).mean() > 0.97  # float16 may swap equal ones


def test_a_probe_of_a_block_reads_that_block(tmp_path: Path) -> None:
    write(tmp_path, "train")
    test = write(tmp_path, "test")
    for number, features in enumerate(("block1", "block4")):
        closerlook.probe(tmp_path, reference="train", methods="linear", l2_path=[1.0], features=features)
        store = cache_schema.open_cache(tmp_path).store(f"clip[linear:{features}:l2=1]", "test")
        np.testing.assert_array_equal(store.features()[store.valid], rows(test, "token_class") * (0.25, 2)[number])


def test_a_probe_stays_the_same_store_when_more_arrays_are_made(tmp_path: Path) -> None:
    plain = [write(tmp_path, name, tokens=False, identity=c * 64) for name, c in (("train", "a"), ("test", "b"))]
    closerlook.probe(tmp_path, reference="train", methods="linear", l2_path=[1.0])
    for store, c in zip(plain, "cd", strict=True):
        write(tmp_path, store.dataset.id, identity=c * 64, record={"extends": [store.identity]})
    closerlook.probe(tmp_path, reference="train", methods="linear", l2_path=[1.0])
    closerlook.probe(tmp_path, reference="train", methods="linear", l2_path=[1.0], features="class")
    cache = cache_schema.open_cache(tmp_path)
    assert len([s for s in cache.stores("predictions") if s.model_id == "clip[linear:l2=1]"]) == 1
    assert len([s for s in cache.stores("predictions") if s.model_id == "clip[linear:class:l2=1]"]) == 1


def test_refusals_name_what_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train", tokens=False)
    write(tmp_path, "test", tokens=False)
    assert main(["probe", str(tmp_path), "--reference", "train", "--features", "class+mean"]) == 2
    assert "'extract --arrays tokens' stores those of vision transformers" in capsys.readouterr().err
    assert main(["probe", str(tmp_path), "--reference", "train", "--features", "block2"]) == 2
    assert "'extract --arrays blocks' stores those of vision transformers" in capsys.readouterr().err
    assert main(["probe", str(tmp_path), "--reference", "train", "--features", "tokens"]) == 2
    with pytest.raises(UserError, match=r"'clas' are none of plain, unit, class, class\+mean, .*; did you mean class"):
        closerlook.probe(tmp_path, reference="train", features="clas")
    other = tmp_path / "other"
    write(other, "test")
    sums = ReferenceAccumulator(C, D, per_class=5)
    sums.update(RNG.normal(size=(9, D)), RNG.normal(size=(9, C)), np.arange(9) % C)
    cache_schema.write_reference(other, model=CARD, dataset=dataset("train"), arrays=sums.arrays())
    with pytest.raises(UserError, match="bank of a reference holds no tokens"):
        closerlook.probe(other, reference="train", features="class")
