"""Rows of two models are paired by image name: in any order, and not at all where there are no names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.curves import curves
from analyze.evaluate.compare import compare_models
from analyze.evaluate.pairing import RowNames, grouped, row_order
from analyze.settings import study_defaults
from cache_schema import DatasetCard, ModelCard, write_store
from cache_schema.cli import main as cache_command
from closerlook_common.errors import UserError

N, C = 90, 5
RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, C, N)
PREDICTED = {
    name: np.where(RNG.random(N) < 0.6, LABELS, RNG.integers(0, C, N)) for name in ("one", "two", "three")
}  # fmt: skip


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., Path]:
    """Import tables of answers: a model's images in any order."""

    def make(model: str, predicted: np.ndarray, order: np.ndarray, *words: str, dataset: str = "val") -> Path:
        frame = pl.DataFrame(
            {"image_id": [f"{i:04d}.jpg" for i in range(N)], "label": LABELS, "predicted": predicted}
        ).with_columns(confidence=pl.lit(0.5))[order.tolist()]
        frame.write_csv(tmp_path / f"{model}-{dataset}.csv")
        given = ["--model", model, "--dataset", dataset, "--cache", str(tmp_path / "cache"), *words]
        assert cache_command(["import", str(tmp_path / f"{model}-{dataset}.csv"), *given]) == 0
        return tmp_path / "cache"

    return make


def compared(cache: Path, *models: str, **options: Any) -> tuple[list[Any], dict[str, str]]:
    opened = cache_schema.open_cache(cache)
    return compare_models(
        opened, models, settings=study_defaults(), replicates=5, **options
    )  # fmt: skip


def within_classes(seed: int) -> np.ndarray:
    """An order that keeps the labels as they are: only the images of a class change places."""
    rng, order = np.random.default_rng(seed), np.arange(N)
    for label in range(C):
        rows = np.flatnonzero(label == LABELS)
        order[rows] = rng.permutation(rows)
    return order


@pytest.mark.parametrize("order", [np.random.default_rng(1).permutation(N), within_classes(2)])
def test_the_same_answers_in_another_order_agree_with_themselves(answers: Callable[..., Path], order: Any) -> None:
    cache = answers("one", PREDICTED["one"], np.arange(N))
    answers("two", PREDICTED["one"], order)
    answers("three", PREDICTED["three"], order[::-1])
    (found,), problems = compared(cache, "one", "two", "three")
    assert not problems
    assert found.paired_by == "name"
    assert found.agreement[0, 1] == 1
    assert found.agreement[0, 2] == found.agreement[1, 2] == (PREDICTED["one"] == PREDICTED["three"]).mean()
    drawn, problems = curves(cache_schema.open_cache(cache), kinds=["error_consistency"])
    assert not problems
    kappa = {(m, s): y for m, s, y in drawn.select("model", "series", "y").rows()}
    assert kappa["one", "two"] == 1
    assert kappa["one", "three"] == pytest.approx(found.consistency[0, 2])


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16))
def test_every_number_is_that_of_the_unshuffled_store(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    cache = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(seed)
    n = 40
    ids = np.array([f"{k}/{i}.jpg" for i, k in enumerate(rng.integers(0, 3, n))])
    labels = rng.integers(0, C, n)
    valid = rng.random(n) < 0.9
    first, second = (rng.normal(0, 2, (n, C)).astype(np.float32) for _ in range(2))
    order = rng.permutation(n)
    for model, logits, rows in (("a", first, slice(None)), ("b", second, slice(None)), ("c", second, order)):
        write_store(
            cache, model=ModelCard(id=model), dataset=DatasetCard(id="d", class_space="k"), logits=logits[rows],
            labels=labels[rows], image_ids=ids[rows], valid=valid[rows],
        )  # fmt: skip
    (plain,), _ = compared(cache, "a", "b")
    (shuffled,), problems = compared(cache, "a", "c")
    assert not problems
    assert shuffled.values == plain.values
    assert shuffled.ensemble == plain.ensemble
    assert (shuffled.agreement == plain.agreement).all()
    assert (shuffled.consistency == plain.consistency).all()


@pytest.fixture
def unnamed(tmp_path: Path) -> Path:
    """Three models on a set and a shift of it, imported without image ids; and one more with ids."""
    for model, predicted in PREDICTED.items():
        for dataset, role in (("val", "id"), ("moved", "shift")):
            logits = np.eye(C, dtype=np.float32)[np.where(LABELS == 0, 1, predicted) if role == "shift" else predicted]
            np.savez(tmp_path / "x.npz", logits=3 * logits, labels=LABELS)
            words = ["--model", model, "--dataset", dataset, "--role", role, "--cache", str(tmp_path / "cache")]
            assert cache_command(["import", str(tmp_path / "x.npz"), *words]) == 0
    return tmp_path / "cache"


def test_rows_without_names_are_paired_only_where_asked_for(
    unnamed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(unnamed), "one", "two", "-o", str(tmp_path / "o.csv"), "--bootstrap", "5"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "no image names" in err
    assert "--pair-by-row" in err
    assert main([*words, "--pair-by-row"]) == 0
    assert "paired by row" in capsys.readouterr().out
    frame = pl.read_csv(tmp_path / "o.csv")
    assert frame["paired_by"].unique().to_list() == ["row"]
    agreement = frame.filter(pl.col("metric") == "agreement", pl.col("dataset") == "val")["value"].item()
    assert agreement == pytest.approx((PREDICTED["one"] == PREDICTED["two"]).mean())
    _, problems = curves(cache_schema.open_cache(unnamed), kinds=["error_consistency"])
    assert "no image names" in problems["error consistency on val"]


def test_agreement_lines_say_what_pairs_the_rows(
    unnamed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(tmp_path / "r.parquet")
    assert main(["metrics", str(unnamed), "-o", results, "--only", "top1"]) == 0
    capsys.readouterr()
    words = ["trends", results, "--by", "", "--bootstrap", "5", "--cache", str(unnamed), "-o", str(tmp_path / "t")]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "no agreement on val of three, two: no image names" in err
    assert "--pair-by-row" in err
    assert not (tmp_path / "t" / "agreement_lines.csv").exists()
    assert main([*words, "--pair-by-row"]) == 0
    lines = pl.read_csv(tmp_path / "t" / "agreement_lines.csv")
    assert lines.select("dataset", "models", "paired_by").rows() == [("moved", 3, "row")]


def test_a_summary_of_unnamed_images_has_no_names_either(
    unnamed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    assert main(["summarize", str(unnamed), "--to", str(small)]) == 0
    for cache in (unnamed, small):
        _, problems = compared(cache, "one", "two")
        assert "no image names" in problems["val"]
    (tmp_path / "a.jsonl").write_text('{"file_name": "0", "pose": 1, "top_factor": "pose"}\n')
    assert main(["factors", str(small), "--annotations", str(tmp_path / "a.jsonl")]) == 1
    assert "no image names" in capsys.readouterr().err


def row_names(model: str, keys: Any, labels: Any, full: Any = None) -> RowNames:
    keys = None if keys is None else np.asarray(keys, np.int64)
    return RowNames(model, "d", "", np.asarray(labels, np.int64), keys, full and (lambda: full))


def test_names_decide_even_where_an_unnamed_store_lies_between() -> None:
    names = {
        0: row_names("unnamed", None, [0, 0]), 1: row_names("a", [1, 2], [0, 0]), 2: row_names("b", [2, 1], [0, 0]),
    }  # fmt: skip
    (group,) = grouped(names, by_row=True)
    assert group[1] is None
    assert group[2] is not None
    assert group[2].tolist() == [1, 0]
    assert group[0] is None
    assert len(grouped(names)) == 2


def test_file_names_that_repeat_in_folders() -> None:
    first = row_names("a", [7, 7, 8], [0, 1, 1])
    order = row_order(first, row_names("b", [8, 7, 7], [1, 1, 0]))
    assert order is not None
    assert order.tolist() == [2, 1, 0]
    twice, other = row_names("a", [7, 7, 8], [0, 0, 1]), row_names("b", [7, 8, 7], [0, 1, 0])
    with pytest.raises(UserError, match="file names repeat in different folders"):
        row_order(twice, other)
    folders = ["x/7", "y/7", "x/8"], ["y/7", "x/8", "x/7"]
    order = row_order(*(row_names(n.model, n.keys, n.labels, f) for n, f in zip((twice, other), folders, strict=True)))
    assert order is not None
    assert order.tolist() == [2, 0, 1]
    with pytest.raises(UserError, match="2 of the 3 file names of a are in b"):
        row_order(row_names("a", [1, 2, 3], [0, 0, 0]), row_names("b", [1, 2, 4], [0, 0, 0]))
    with pytest.raises(UserError, match="disagree about the labels: row 0 is 0 in a and 1 in b"):
        row_order(row_names("a", [1, 2], [0, 0]), row_names("b", [2, 1], [0, 1]))


def test_imported_answers_are_joined_with_annotations(
    answers: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = answers("one", PREDICTED["one"], np.random.default_rng(0).permutation(N))
    lines = [
        {"file_name": f"{i:04d}.jpg", "pose": int(i % 2 == 0), "texture": int(i % 2), "top_factor":
         "pose" if i % 2 == 0 else "texture"}
        for i in range(N)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "f.parquet"
    assert main(["factors", str(cache), "--annotations", str(tmp_path / "a.jsonl"), "-o", str(out)]) == 0
    capsys.readouterr()
    rows = pl.read_parquet(out).filter(pl.col("metric") == "factor_accuracy", pl.col("calibrator") == "")
    got = {row["factor"]: row["value"] for row in rows.iter_rows(named=True)}
    right = PREDICTED["one"] == LABELS
    assert got["pose"] == pytest.approx(right[::2].mean())
    assert got["texture"] == pytest.approx(right[1::2].mean())


def test_humans_in_super_classes_beside_a_model(
    tmp_path: Path, toy_store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = ((0, 1), (2, 3, 4), (7,))
    labels = np.arange(60) % 3
    card = {"class_map": groups}
    toy_store(cache=tmp_path / "cache", model="net", dataset="coarse", role="shift", n=60, labels=labels, card=card)
    store = cache_schema.open_cache(tmp_path / "cache").store("net", "coarse")
    best = store.logits()
    predicted = np.stack([best[:, list(group)].max(axis=1) for group in groups], axis=1).argmax(axis=1)
    rows = np.random.default_rng(0).permutation(60)
    frame = pl.DataFrame({"image_id": store.image_ids, "label": labels, "predicted": predicted, "confidence": 0.9})
    frame[rows.tolist()].write_csv(tmp_path / "human.csv")
    (tmp_path / "map.txt").write_text("pets: 0 1\nbirds: 2, 3, 4\ncars: 7\n")
    words = ["import", str(tmp_path / "human.csv"), "--model", "human", "--dataset", "coarse", "--role", "shift",
             "--cache", str(tmp_path / "cache"), "--class-map"]  # fmt: skip
    assert cache_command([*words, str(tmp_path / "map.txt")]) == 0
    (found,), _ = compared(tmp_path / "cache", "net", "human")
    assert found.agreement[0, 1] == 1
    (tmp_path / "map.json").write_text(json.dumps({"pets": [0, 1], "birds": [2, 3, 4]}))
    assert cache_command([*words, str(tmp_path / "map.json"), "--overwrite"]) == 2
    assert "row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.txt", "0 1\n1 2\n", "holds class 1 twice"),
        ("m.txt", "0 x\n", "'x', which is not a class index"),
        ("m.txt", "\n", "at least one class in every super-class"),
        ("m.json", "{}", "at least one class in every super-class"),
        ("m.json", "[[0, -1]]", "which are not class indices"),
        ("m.json", "[0, 1]", "a list of lists"),
        ("m.json", "{", "is not JSON"),
    ],
)
def test_bad_class_maps(name: str, text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "t.csv").write_text("image_id,label,predicted,confidence\na,0,0,0.5\n")
    words = ["--model", "m", "--dataset", "d", "--cache", str(tmp_path / "c"), "--class-map", str(tmp_path / name)]
    assert cache_command(["import", str(tmp_path / "t.csv"), *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_answers_outside_a_class_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mask.txt").write_text("2\n4\n")
    words = [
        "--model",
        "m",
        "--dataset",
        "d",
        "--cache",
        str(tmp_path / "c"),
        "--class-mask",
        str(tmp_path / "mask.txt"),
    ]
    for row, says in (("a,2,3,0.5", "row 0 has predicted 3"), ("a,0,2,0.5", "row 0 has label 0")):
        (tmp_path / "t.csv").write_text(f"image_id,label,predicted,confidence\n{row}\n")
        assert cache_command(["import", str(tmp_path / "t.csv"), *words]) == 2
        assert says in capsys.readouterr().err
