"""Outputs that somebody else computed: the kind is named, what is not what its name says is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.writing.validate import problems

N, C = 60, 7


@pytest.fixture
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (N, C)).astype(np.float32)
    odds = np.exp(logits.astype(np.float64))
    return {
        "logits": logits,
        "probabilities": odds / odds.sum(axis=1, keepdims=True),
        "log_probabilities": np.log(odds / odds.sum(axis=1, keepdims=True)),
        "labels": rng.integers(0, C, N),
    }


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    def run_import(file: Path, *words: str) -> int:
        return main(
            [
                "import",
                str(file),
                "--cache",
                str(tmp_path / "cache"),
                "--model",
                "mine",
                "--dataset",
                "photos",
                *words,
            ]
        )

    return run_import


def only_store(tmp_path: Path) -> Any:
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores()
    assert problems(store.path) == []
    return store


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_npz(
    tmp_path: Path,
    arrays: dict[str, Any],
    run: Callable[..., int],
    kind: str,
    save: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cache_schema.importing.outputs.BLOCK_BYTES", 17 * C * 8)  # several blocks
    features = np.asfortranarray(np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32))
    extra = {"image_ids": [f"i{i}" for i in range(N)], "metadata.pose": ["top", "side"] * 30}
    save(tmp_path / "mine.npz", features=features, labels=arrays["labels"], **{kind: arrays[kind]}, **extra)
    assert run(tmp_path / "mine.npz", "--group", "supervised-in1k", "--backend", "hdf5") == 0
    store = only_store(tmp_path)
    assert store.logits_kind == ("logits" if kind == "logits" else "log_probabilities")
    expected = arrays["logits" if kind == "logits" else "log_probabilities"]
    np.testing.assert_allclose(store.logits(), expected, atol=0.02)
    np.testing.assert_array_equal(store.logits().argmax(axis=1), arrays["logits"].argmax(axis=1))
    np.testing.assert_array_equal(store.features(), features.astype("f2").astype("f4"))
    np.testing.assert_array_equal(store.labels, arrays["labels"])
    assert store.image_ids == extra["image_ids"]
    assert store.metadata["pose"].tolist() == extra["metadata.pose"]
    assert (store.model.group, store.model.library) == ("supervised-in1k", "import")
    assert (store.dataset.n_classes, store.dataset.n_images) == (C, N)
    assert len(store.dataset.digest) == 64


def test_a_probability_of_zero_is_minus_infinity(tmp_path: Path, run: Callable[..., int]) -> None:
    np.savez(tmp_path / "p.npz", probabilities=np.array([[1.0, 0.0], [0.25, 0.75]]), labels=[0, 1])
    assert run(tmp_path / "p.npz") == 0
    np.testing.assert_array_equal(only_store(tmp_path).centred_logits()[0], [0, -np.inf])


def test_unlabelled_sets_say_so(
    tmp_path: Path, arrays: dict[str, Any], run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "o.npz", logits=arrays["logits"])
    assert run(tmp_path / "o.npz") == 2
    assert "holds no labels" in capsys.readouterr().err
    assert run(tmp_path / "o.npz", "--role", "ood", "--distance", "near") == 0
    assert (only_store(tmp_path).labels == -1).all()


def test_masked_classes(
    tmp_path: Path, arrays: dict[str, Any], run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mask.txt").write_text("4\n2\n")
    np.savez(tmp_path / "m.npz", logits=arrays["logits"], labels=arrays["labels"])
    assert run(tmp_path / "m.npz", "--class-mask", str(tmp_path / "mask.txt")) == 0
    outside = (~np.isin(arrays["labels"], (2, 4))).sum()
    assert f"{outside} of {N} images have labels outside the class mask" in capsys.readouterr().err
    store = only_store(tmp_path)
    assert store.dataset.class_mask == (2, 4)
    assert (store.centred_logits()[:, [2, 4]].max(axis=1) == 0).all()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"probabilities": "logits"}, "row 0 of probabilities has values from"),
        ({"log_probabilities": "logits"}, "these are not log_probabilities"),
        ({"probabilities": "log_probabilities"}, "these are not probabilities"),
        ({"logits": "logits", "probabilities": "probabilities"}, "exactly one of logits"),
        ({"scores": "logits"}, "exactly one of logits"),
        ({"logits": "labels"}, "logits are int64 of shape (60,)"),
    ],
)
def test_nothing_is_guessed(
    tmp_path: Path,
    arrays: dict[str, Any],
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    content: dict[str, str],
    what: str,
) -> None:
    np.savez(tmp_path / "x.npz", labels=arrays["labels"], **{name: arrays[key] for name, key in content.items()})
    assert run(tmp_path / "x.npz") == 2
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "cache").glob("**/*.zarr"))


def test_nothing_is_unpickled(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", logits=np.array([[1.0, None]], dtype=object), labels=[0])
    assert run(tmp_path / "x.npz") == 2
    assert "holds Python objects, which are never loaded" in capsys.readouterr().err
    np.savez(tmp_path / "y.npz", logits=np.eye(2), labels=np.array([0, None], dtype=object))
    assert run(tmp_path / "y.npz") == 2
    assert "'labels' holds Python objects" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [10, 200])
def test_damaged_files(
    tmp_path: Path,
    arrays: dict[str, Any],
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    cut: int,
) -> None:
    np.savez(tmp_path / "x.npz", logits=arrays["logits"], labels=arrays["labels"])
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(raw[:-cut])
    assert run(tmp_path / "cut.npz") == 2
    raw[900] ^= 1  # the zip's checksum shows it
    (tmp_path / "flipped.npz").write_bytes(raw)
    assert run(tmp_path / "flipped.npz") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert run(tmp_path / "none.npz") == 2
    assert run(tmp_path / "x.txt") == 2


def table(**changes: Any) -> pl.DataFrame:
    columns = {
        "image_id": [f"{i}.jpg" for i in range(9)],
        "label": [0, 1, 2] * 3,
        "predicted": [0, 0, 2] * 3,
        "confidence": [0.5] * 9,
        "pose": ["top", None, "side"] * 3,
        "area": [0.5, None, 1.5] * 3,
        **changes,
    }
    return pl.DataFrame({name: values for name, values in columns.items() if values is not None})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_become_summaries(tmp_path: Path, run: Callable[..., int], suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    table().write_csv(path) if suffix == "csv" else table().write_parquet(path)
    assert run(path, "--n-classes", "3") == 0
    store = only_store(tmp_path)
    assert store.kind == "summary"
    assert store.columns() == (
        "image_id",
        "label",
        "predicted",
        "confidence",
        "metadata.pose",
        "metadata.area",
    )
    assert store.column("label").dtype == store.column("predicted").dtype == np.int32
    assert store.column("confidence").dtype == np.float32
    assert store.column("metadata.pose").tolist() == ["top", "", "side"] * 3
    assert np.isnan(store.column("metadata.area")[1])
    assert store.column("image_id")[4] == "4.jpg"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"label": None, "lable": [0] * 9}, "no column 'label'; did you mean lable"),
        ({"label": [0, None, 1] * 3}, "column 'label' is empty in row 1"),
        ({"label": ["cat"] * 9}, "column 'label' is String, not class indices"),
        ({"label": [0, 1, 3] * 3}, "row 2 has label 3; labels are -1 (none) to 2"),
        ({"predicted": [-1] * 9}, "row 0 is predicted as -1"),
        ({"confidence": [0.5, 1.5, 0.5] * 3}, "row 1 has confidence 1.5"),
        ({"confidence": ["high"] * 9}, "column 'confidence' is String"),
        ({"image_id": ["a"] * 9}, "rows 0 and 1 have the same image id"),
    ],
)
def test_bad_tables(
    tmp_path: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    what: str,
) -> None:
    table(**changes).write_parquet(tmp_path / "t.parquet")
    assert run(tmp_path / "t.parquet", "--n-classes", "3") == 2
    assert what in capsys.readouterr().err


def test_no_rows_and_no_table(tmp_path: Path, run: Callable[..., int]) -> None:
    table().head(0).write_parquet(tmp_path / "t.parquet")
    assert run(tmp_path / "t.parquet") == 2
    (tmp_path / "u.parquet").write_text("nothing of the sort")
    assert run(tmp_path / "u.parquet") == 2
    assert run(tmp_path / "missing.csv") == 2
