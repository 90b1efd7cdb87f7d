"""Encoders without a head: ``analyze probe`` writes models that metrics and detectors take as any other."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import cache_schema
import closerlook
from analyze.cli import main
from analyze.probes.banks import held_out_rows, shot_rows
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from closerlook_common.errors import IncompleteWarning, UserError

C, D = 4, 12
NAMES = tuple(f"class {c}" for c in range(C))
ENCODER = ModelCard(id="dinov2", library="timm", name="vit_small", feature_width=D, extra={"n_classes": 0})
TRAIN = DatasetCard(id="train", role="reference", class_space="four", n_classes=C, class_names=NAMES)
TEST = DatasetCard(id="test", role="id", class_space="four", n_classes=C, class_names=NAMES)
CENTRES = np.random.default_rng(99).normal(size=(C, D)) * 0.9


def images(seed: int, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % C)
    return ((CENTRES[labels] + rng.normal(size=(n, D))) * 2 + shift).astype(np.float16).astype(np.float32), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def write_encoder(folder: Path, backend: str = "zarr") -> None:
    """Write an encoder's features of a training set, a test set, a shifted set and an OOD set."""
    sets = [
        (TRAIN, images(0, 400)),
        (TEST, images(1, 200)),
        (replace(TEST, id="shifted", role="shift", shift_of="test"), images(2, 120, shift=0.8)),
        (DatasetCard(id="ood", role="ood"), (images(3, 80, shift=-2)[0], None)),
    ]
    for card, (features, labels) in sets:
        valid = np.ones(len(features), dtype=bool)
        valid[7] = False
        cache_schema.write_store(
            folder, model=ENCODER, dataset=card, features=features, labels=labels, valid=valid, backend=backend,
            image_ids=[f"{card.id}/{i}.jpg" for i in range(len(features))], metadata={"row": np.arange(len(features))},
        )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_encoder(tmp_path / "cache")
    return tmp_path / "cache"


def rows_of(store: cache_schema.PredictionStore) -> tuple[np.ndarray, np.ndarray]:
    keep = store.valid & (store.labels >= 0)
    return store.features()[keep].astype(np.float64), store.labels[keep]


def test_a_linear_probe_is_scikit_learns_on_a_stored_training_set(cache: Path) -> None:
    found = closerlook.probe(cache, reference="train", methods="linear")
    opened = cache_schema.open_cache(cache)
    features, labels = rows_of(opened.store("dinov2", "train"))
    store = opened.store("dinov2[linear]", "test")
    chosen = store.record["probe"]["l2"]
    theirs = LogisticRegression(C=1 / chosen, tol=1e-10, max_iter=10_000).fit(features, labels)
    expected = theirs.predict_proba(opened.store("dinov2", "test").features()[store.valid])
    np.testing.assert_allclose(softmax(store.logits()[store.valid]), expected, atol=3e-3)  # float16 logits
    head = opened.head("dinov2[linear]", "four")
    np.testing.assert_allclose(head.weight, theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(head.logits(store.features()[store.valid]), store.logits()[store.valid], atol=0.05)
    assert head.class_names == NAMES
    value = found.frame.filter(pl.col("metric") == "top1", pl.col("dataset") == "test")
    right = expected.argmax(axis=1) == store.labels[store.valid]
    assert value["value"].item() == pytest.approx(right.mean())
    assert value["low"].item() < value["value"].item() < value["high"].item()
    assert value["n"].item() == 199


def test_the_penalty_is_the_best_on_held_out_rows(cache: Path) -> None:
    path = [1e-5, 0.3, 1e5]
    closerlook.probe(cache, reference="train", methods="linear", l2_path=path, held_out=0.25, seed=3)
    opened = cache_schema.open_cache(cache)
    features, labels = rows_of(opened.store("dinov2", "train"))
    held = held_out_rows(labels.astype(np.int64), 0.25, 3)
    scores = {}
    for l2 in path:
        theirs = LogisticRegression(C=1 / l2, tol=1e-9, max_iter=20_000).fit(features[~held], labels[~held])
        scores[l2] = theirs.score(features[held], labels[held])
    record = opened.store("dinov2[linear]", "test").record["probe"]
    assert record["held_out_images"] == held.sum()
    assert dict(record["tried"]) == pytest.approx(scores, abs=0.015)
    assert record["held_out_accuracy"] == max(accuracy for _, accuracy in record["tried"])
    assert (record["held_out"], record["held_out_seed"], record["images"]) == (0.25, 3, 399)


def test_metrics_and_detectors_take_probes_as_any_model(cache: Path, tmp_path: Path) -> None:
    closerlook.probe(cache, reference="train")
    results = closerlook.evaluate(cache)
    assert set(results.models) == {"dinov2[knn]", "dinov2[linear]"}
    frame = results.frame
    for metric in ("top1", "ece", "aurc", "auroc", "brier"):
        of = frame.filter(pl.col("metric") == metric, pl.col("value").is_not_null())
        assert set(of["model"]) == {"dinov2[knn]", "dinov2[linear]"}, metric
    detected = closerlook.ood(cache, reference="train", models="dinov2[linear]").frame
    scores = set(detected.filter(pl.col("metric") == "auroc", pl.col("value").is_not_null())["score"])
    assert {"knn", "vim", "energy", "mds", "react"} <= scores
    assert set(frame.filter(pl.col("metric") == "top1")["dataset"]) == {"test", "shifted"}


def test_unit_features_are_what_the_head_acts_on(cache: Path) -> None:
    closerlook.probe(cache, reference="train", methods="linear", features="unit", l2_path=[0.5])
    opened = cache_schema.open_cache(cache)
    name = "dinov2[linear:unit:l2=0.5]"
    store = opened.store(name, "test")
    np.testing.assert_allclose(np.linalg.norm(store.features()[store.valid], axis=1), 1, atol=1e-3)
    features, labels = rows_of(opened.store("dinov2", "train"))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    theirs = LogisticRegression(C=2, tol=1e-10, max_iter=10_000).fit(features, labels)
    head = opened.head(name, "four")
    np.testing.assert_allclose(head.weight, theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-4, rtol=1e-4)
    assert not head.normalize_features


def test_neighbours_of_the_stored_rows(cache: Path) -> None:
    closerlook.probe(cache, reference="train", methods="knn")
    opened = cache_schema.open_cache(cache)
    store, (features, labels) = opened.store("dinov2[knn]", "test"), rows_of(opened.store("dinov2", "train"))
    asked = opened.store("dinov2", "test").features().astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert store.logits_kind == "log_probabilities"
    assert not store.has_features
    for row in (0, 5, 99):
        cosines = unit @ (asked[row] / np.linalg.norm(asked[row]))
        best = np.argsort(-cosines)[:20]
        votes = np.bincount(labels[best], np.exp(cosines[best] / 0.07), minlength=C)
        np.testing.assert_allclose(np.exp(store.logits(row, row + 1)[0]), votes / votes.sum(), atol=1e-3)
    np.testing.assert_array_equal(store.metadata["row"], np.arange(200))
    assert store.image_ids[3] == "test/3.jpg"
    assert not store.valid[7]


def test_few_shots_leave_the_held_out_rows_alone(cache: Path) -> None:
    closerlook.probe(cache, reference="train", shots=(1, 5), seeds=2, seed=4, methods="linear")
    opened = cache_schema.open_cache(cache)
    names = {s.model.id for s in opened.stores("predictions")} - {"dinov2"}
    assert names == {f"dinov2[linear:{shots}-shot:seed={seed}]" for shots in (1, 5) for seed in (4, 5)}
    features, labels = rows_of(opened.store("dinov2", "train"))
    labels = labels.astype(np.int64)
    drawn = shot_rows(labels, ~held_out_rows(labels, 0.1, 4), 5, 5)
    store = opened.store("dinov2[linear:5-shot:seed=5]", "test")
    record = store.record["probe"]
    assert (record["images"], record["shots"], record["seed"], drawn.sum()) == (5 * C, 5, 5, 5 * C)
    theirs = LogisticRegression(C=1 / record["l2"], tol=1e-10, max_iter=20_000).fit(features[drawn], labels[drawn])
    expected = theirs.predict_proba(opened.store("dinov2", "test").features()[store.valid])
    np.testing.assert_allclose(softmax(store.logits()[store.valid]), expected, atol=4e-3)


def test_nothing_is_fitted_or_written_again(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(cache), "--reference", "train"]) == 0
    out, err = capsys.readouterr()
    assert "dinov2[linear] on test" in out
    assert "6 prediction stores of 2 probes written" in err
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("zarr.json")}
    assert main(["probe", str(cache), "--reference", "train"]) == 0
    assert "0 prediction stores of 2 probes written" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("zarr.json")} == before


def test_another_cache_and_format(cache: Path, tmp_path: Path) -> None:
    to = tmp_path / "probes"
    words = ["--reference", "train", "--methods", "linear", "--l2-path", "1e-2:1:3", "--store", "hdf5", "-o", str(to)]
    assert main(["probe", str(cache), *words]) == 0
    assert {s.model.id for s in cache_schema.open_cache(cache).stores()} == {"dinov2"}
    opened = cache_schema.open_cache(to)
    assert {s.kind for s in opened.stores()} == {"predictions", "head", "reference"}
    assert [l2 for l2, _ in opened.store("dinov2[linear]", "test").record["probe"]["tried"]] == pytest.approx(
        [0.01, 0.1, 1.0]
    )


def test_a_reference_stores_bank_serves_too(tmp_path: Path) -> None:
    features, labels = images(0, 400)
    sums = ReferenceAccumulator(C, D, per_class=20)
    sums.update(features, np.eye(C, dtype=np.float32)[labels], labels)
    cache_schema.write_reference(tmp_path, model=ENCODER, dataset=TRAIN, arrays=sums.arrays())
    cache_schema.write_store(tmp_path, model=ENCODER, dataset=TEST, features=images(1, 50)[0], labels=images(1, 50)[1])
    closerlook.probe(tmp_path, reference="train", methods=["linear"], l2_path=[1.0])
    opened = cache_schema.open_cache(tmp_path)
    bank = opened.reference("dinov2", "train")
    theirs = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(
        bank.bank_features.astype(np.float64), bank.bank_labels
    )
    head = opened.head("dinov2[linear:l2=1]", "four")
    np.testing.assert_allclose(head.weight, theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-4, rtol=1e-4)
    store = opened.store("dinov2[linear:l2=1]", "test")
    assert store.record["probe"]["reference_kind"] == "reference"
    assert store.record["image_ids"] == "row numbers"


def test_what_cannot_be_probed_has_a_reason(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = ModelCard(id="net", head_kind="linear")
    labels = images(1, 50)[1]
    cache_schema.write_store(cache, model=net, dataset=TEST, logits=np.eye(C)[labels], labels=labels)
    with pytest.raises(UserError, match="net: its stores hold no features, which a probe is fitted on"):
        closerlook.probe(cache, reference="train", models="net")
    with pytest.raises(UserError, match="dinov2: it has no store of the reference 'trian'; did you mean train"):
        closerlook.probe(cache, reference="trian")
    cache_schema.write_store(cache, model=ModelCard(id="mae"), dataset=TEST, features=images(1, 50)[0], labels=labels)
    with pytest.raises(UserError, match=r"^mae: it has no store of the reference 'train'$"):
        closerlook.probe(cache, reference="train", models="mae")
    other = DatasetCard(id="pets", role="id", class_space="pets", n_classes=2, class_names=("cat", "dog"))
    cache_schema.write_store(cache, model=ENCODER, dataset=other, features=images(5, 20)[0], labels=np.arange(20) % 2)
    with pytest.warns(IncompleteWarning, match="dinov2 on pets: its classes are pets, those of train are four"):
        closerlook.probe(cache, reference="train", methods="knn", models="dinov2")
    with pytest.raises(UserError, match=r"dinov2\[knn\]: it is a probe already"):
        closerlook.probe(cache, reference="train", models="dinov2[knn]")
    assert main(["probe", str(cache), "--reference", "train", "--methods", "liner"]) == 2
    assert "no probe 'liner'; did you mean linear" in " ".join(capsys.readouterr().err.split())
    for words in (["--l2-path", "0:1:3"], ["--l2-path", "a"], ["--l2-path", "1:2"], ["--l2-path", "1,-1"],
                  ["--l2-path", "1:2:x"], ["--shots", "0"], ["--shots", "1.5"], ["--held-out", "1"],
                  ["--temperature", "0"]):  # fmt: skip
        assert main(["probe", str(cache), "--reference", "train", *words]) == 2, words
        capsys.readouterr()


def test_a_class_without_images_leaves_the_linear_probe_out(tmp_path: Path) -> None:
    features, labels = images(0, 100)
    keep = labels != 2
    cache_schema.write_store(tmp_path, model=ENCODER, dataset=TRAIN, features=features[keep], labels=labels[keep])
    cache_schema.write_store(tmp_path, model=ENCODER, dataset=TEST, features=features, labels=labels)
    with pytest.warns(IncompleteWarning, match=r"dinov2\[linear\]: a linear probe needs images of every class"):
        found = closerlook.probe(tmp_path, reference="train")
    assert found.models == ["dinov2[knn]"]


def test_the_example_probes_arrays(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "own_probe.py"
    space = runpy.run_path(str(path))
    top1 = space["main"](tmp_path).frame.filter(pl.col("metric") == "top1")
    assert set(top1["model"]) == {"encoder[knn]", "encoder[linear]"}
    assert top1["value"].min() > 0.7


def test_a_cache_of_classifiers_alone_says_what_to_name(tmp_path: Path) -> None:
    labels = images(1, 50)[1]
    cache_schema.write_store(tmp_path, model=ModelCard(id="net"), dataset=TEST, logits=np.eye(C)[labels], labels=labels)
    with pytest.raises(UserError, match="every model of this cache has logits: name those to probe"):
        closerlook.probe(tmp_path, reference="train")
