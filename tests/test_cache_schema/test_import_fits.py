"""Outputs in other shapes and by other names, and what detectors are fitted on: a training set, a last layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import cache_schema
from cache_schema.cli import main
from cache_schema.importing.column_names import wide_columns
from cache_schema.writing.validate import problems

N, C, D = 60, 7, 5
Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(N, D)).astype(np.float32)
    weight, bias = rng.normal(size=(C, D)).astype(np.float32), rng.normal(size=C).astype(np.float32)
    logits = features @ weight.T + bias
    return {
        "logits": logits, "features": features, "labels": rng.integers(0, C, N), "weight": weight, "bias": bias,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    return lambda file, *words: main(
        ["import", str(tmp_path / file), "--cache", str(tmp_path / "cache"), "--model", "mine", *map(str, words)]
    )


def the_store(tmp_path: Path, kind: str) -> cache_schema.Store:
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores(kind)
    assert problems(store.path) == []
    return store


def same_predictions(tmp_path: Path, arrays: Arrays, *, features: bool = True) -> None:
    store = the_store(tmp_path, "predictions")
    logits = np.asarray(arrays["logits"], np.float64)
    gaps = logits - logits.max(axis=1, keepdims=True)
    np.testing.assert_allclose(store.logits() - store.logits().max(axis=1, keepdims=True), gaps, rtol=2**-10)
    np.testing.assert_array_equal(store.labels, arrays["labels"])
    assert store.header["dataset"]["class_space"] == f"{C}-classes"
    if features:
        np.testing.assert_allclose(store.features(), arrays["features"], rtol=2**-10, atol=1e-6)


def test_arrays_in_files_of_their_own(tmp_path: Path, arrays: Arrays, run: Callable[..., int]) -> None:
    for name in ("logits", "features", "labels"):
        np.save(tmp_path / f"{name}.npy", arrays[name])
    np.save(tmp_path / "ids.npy", np.array([f"{i}.jpg" for i in range(N)]))
    beside = ["--labels", tmp_path / "labels.npy", "--features", tmp_path / "features.npy"]
    assert run("logits.npy", "--dataset", "d", *beside, "--image-ids", tmp_path / "ids.npy") == 0
    same_predictions(tmp_path, arrays)
    assert list(the_store(tmp_path, "predictions").image_ids[:2]) == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    "names",
    [("logit_list", "label_list", "feat_list"), ("logits", "targets", "embeddings"), ("Logit", "y_true", "Feats")],
)
def test_arrays_by_other_names(
    names: tuple[str, str, str], tmp_path: Path, arrays: Arrays, run: Callable[..., int]
) -> None:
    named = dict(zip(names, (arrays[name] for name in ("logits", "labels", "features")), strict=True))
    np.savez(tmp_path / "mine.npz", **named)
    assert run("mine.npz", "--dataset", "d") == 0
    same_predictions(tmp_path, arrays)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_with_a_column_a_class(suffix: str, tmp_path: Path, arrays: Arrays, run: Callable[..., int]) -> None:
    shuffled = [*range(C)][::-1]  # columns are taken by their number, not by their place
    frame = pl.DataFrame({f"logit_{k}": arrays["logits"][:, k] for k in shuffled})
    frame = frame.with_columns(label=pl.Series(arrays["labels"]), image=pl.Series([f"{i}.jpg" for i in range(N)]))
    getattr(frame, f"write_{suffix}")(tmp_path / f"mine.{suffix}")
    assert run(f"mine.{suffix}", "--dataset", "d") == 0
    same_predictions(tmp_path, arrays, features=False)


def test_wide_columns_are_stated_apart() -> None:
    names = ["log_prob_1", "log_prob_0", "prob_0", "feature1", "feature0", "problem_1", "label", "logit"]
    assert wide_columns(names) == {
        "log_probabilities": ["log_prob_0", "log_prob_1"], "probabilities": ["prob_0"],
        "features": ["feature0", "feature1"],
    }  # fmt: skip


def test_answers_by_other_names(tmp_path: Path, run: Callable[..., int]) -> None:
    (tmp_path / "a.csv").write_text("Filename,target,pred,conf\n007.jpg,1,1,0.9\n008.jpg,0,1,0.6\n")
    assert run("a.csv", "--dataset", "d", "--n-classes", 2) == 0
    summary = the_store(tmp_path, "summary")
    assert list(summary.column("image_id")) == ["007.jpg", "008.jpg"]
    assert list(summary.column("predicted")) == [1, 1]


def test_a_training_set_becomes_a_reference(tmp_path: Path, arrays: Arrays, run: Callable[..., int]) -> None:
    np.savez(tmp_path / "train.npz", **{name: arrays[name] for name in ("logits", "features", "labels")})
    assert run("train.npz", "--dataset", "train", "--role", "reference", "--per-class", 2) == 0
    store = the_store(tmp_path, "reference")
    features, labels = arrays["features"].astype(np.float64), arrays["labels"]
    sums = np.stack([features[labels == k].sum(axis=0) for k in range(C)])
    np.testing.assert_allclose(store.feature_sum, sums, atol=1e-9)
    np.testing.assert_allclose(store.second_moment, features.T @ features, atol=1e-9)
    assert store.class_count.tolist() == np.bincount(labels, minlength=C).tolist()
    assert np.bincount(store.bank_labels, minlength=C).max() <= 2


def test_a_last_layer_becomes_a_head(tmp_path: Path, arrays: Arrays, run: Callable[..., int]) -> None:
    np.savez(tmp_path / "head.npz", weight=arrays["weight"], bias=arrays["bias"])
    assert run("head.npz") == 0
    head = cache_schema.open_cache(tmp_path / "cache").head("mine", f"{C}-classes")
    np.testing.assert_array_equal(head.weight, arrays["weight"])
    np.testing.assert_array_equal(head.bias, arrays["bias"])


@pytest.mark.parametrize(
    ("file", "words", "says"),
    [
        ("a.pt", ["--dataset", "d"], "numpy.savez('mine.npz', logits=logits.cpu().numpy()"),
        ("a.pt", [], "numpy.savez('mine.npz', logits=logits.cpu().numpy()"),
        ("logits.npz", [], "--dataset is missing"),
        ("answers.csv", [], "--dataset is missing"),
        ("long.npz", [], "bias"),
        ("logits.npz", ["--dataset", "d", "--role", "reference"], "holds no features: a training set"),
        ("torn.npy", ["--dataset", "d"], "is not an .npy file of plain numbers"),
        ("none.npy", ["--dataset", "d"], "no such file"),
        ("none.csv", ["--dataset", "d"], "no such file"),
        ("flat.npz", [], "weight is of shape (7,), not (classes, width)"),
        ("text.csv", ["--dataset", "d"], "column 'logit_1' is String, not a number"),
        ("short.npz", ["--dataset", "d", "--role", "reference"], "the shapes disagree"),
        ("nan.npz", [], "weight holds NaN or infinity: [2, 1] is nan (1 in all)"),
        ("complex.npz", [], "weight is complex64, not real numbers"),
        ("column.npz", [], "bias is of shape (7, 1); a weight of shape (7, 5) needs (7,)"),
        ("unlabelled.npz", ["--dataset", "d", "--role", "reference"], "no row has a label and finite numbers"),
        ("floats.npz", ["--dataset", "d"], "labels are float64 of shape (60,), not 60 class indices"),
        ("holes.npz", ["--dataset", "d"], "no row of logits is free of NaN and valid"),
        ("inf.npz", ["--dataset", "d"], "inf.npz: row 3 holds a logit of +inf"),
        ("large.npz", ["--dataset", "d"], "too large for float16; give --features-dtype float32"),
    ],
)
def test_bad_files_are_one_line(
    file: str,
    words: list[str],
    says: str,
    tmp_path: Path,
    arrays: Arrays,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.pt").write_bytes(b"PK")
    (tmp_path / "torn.npy").write_bytes(b"\x93NUM")
    (tmp_path / "text.csv").write_text("logit_0,logit_1\n1.0,x\n")
    np.savez(tmp_path / "logits.npz", logits=arrays["logits"], labels=arrays["labels"])
    (tmp_path / "answers.csv").write_text("image_id,label,predicted,confidence\na,1,1,0.5\n")
    np.savez(tmp_path / "flat.npz", weight=arrays["bias"])
    np.savez(tmp_path / "long.npz", weight=arrays["weight"], bias=np.zeros(C + 1))
    holed, weight = arrays["logits"].copy(), arrays["weight"].copy()
    weight[2, 1], holed[3] = np.nan, np.inf
    np.savez(tmp_path / "nan.npz", weight=weight, bias=arrays["bias"])
    np.savez(tmp_path / "complex.npz", weight=arrays["weight"] * 1j)
    np.savez(tmp_path / "column.npz", weight=arrays["weight"], bias=arrays["bias"][:, None])
    given = {name: arrays[name] for name in ("logits", "features", "labels")}
    np.savez(tmp_path / "unlabelled.npz", **given | {"labels": np.full(N, -1)})
    np.savez(tmp_path / "floats.npz", **given | {"labels": np.where(arrays["labels"] == 0, np.nan, 1)})
    np.savez(tmp_path / "holes.npz", **given | {"logits": arrays["logits"] * np.nan})
    np.savez(tmp_path / "inf.npz", **given | {"logits": holed})
    np.savez(tmp_path / "large.npz", **given | {"features": arrays["features"] * 1e6})
    short = {"logits": arrays["logits"], "features": arrays["features"][:3], "labels": arrays["labels"]}
    np.savez(tmp_path / "short.npz", **short)
    assert run(file, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]
