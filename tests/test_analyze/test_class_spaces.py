"""Scores of logits over different classes are never compared: no AUROC, but a reason, and no curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.curves import curves
from analyze.reading.class_spaces import other_classes, other_view
from analyze.results import read_results
from cache_schema import DatasetCard

SPACES = st.sampled_from(["", "imagenet-1k", "pets-37", "1000-classes", "37-classes"])
SIZE = {"imagenet-1k": 1000, "pets-37": 37, "1000-classes": 1000, "37-classes": 37}


@given(first=SPACES, second=SPACES, sizes_known=st.booleans())
def test_only_the_same_classes_are_compared(first: str, second: str, sizes_known: bool) -> None:
    cards = [DatasetCard(id=name, role="id", class_space=space) for name, space in (("a", first), ("b", second))]
    sizes = [SIZE.get(space, 0) if sizes_known else 0 for space in (first, second)]
    reason = other_classes(*cards, n_inside=sizes[0], n_outside=sizes[1])
    back = other_classes(cards[1], cards[0], n_inside=sizes[1], n_outside=sizes[0])
    assert bool(reason) == bool(back)
    if "" in (first, second):
        assert not reason
    elif sizes_known:
        assert bool(reason) == (SIZE[first] != SIZE[second])
    if {first, second} == {"imagenet-1k", "pets-37"}:
        assert "run b with the classes of a" in reason


def test_masks_and_maps() -> None:
    whole, masked = (DatasetCard(id="a", role="id", class_mask=mask) for mask in (None, (0, 2)))
    mapped = DatasetCard(id="a", role="id", class_map=((0,), (1, 2)))
    assert other_view(whole, whole) == other_view(whole, masked) == other_view(mapped, mapped) == ""
    assert "do not have the same competing classes" in other_view(masked, whole)
    assert "do not have the same competing classes" in other_view(whole, mapped)


@pytest.fixture
def cache(toy_store: Any, tmp_path: Path) -> Path:
    """Two in-distribution sets, of four and of three classes; an OOD set run with the four."""
    for dataset, role, n_classes in (("pets", "id", 4), ("photos", "id", 3), ("sun", "ood", 4)):
        space = f"classes-{n_classes}"
        toy_store(n=90, n_classes=n_classes, model="m", dataset=dataset, role=role, card={"class_space": space})
    return tmp_path / "cache"


def numbers(path: Path, metric: str = "auroc") -> dict[tuple[str, str], tuple[float | None, str]]:
    rows = read_results(path).filter(pl.col("metric") == metric, pl.col("dataset") == "sun")
    return {(of, score): (v, why) for of, score, v, why in rows.select("id_dataset", "score", "value", "reason").rows()}


def test_no_command_compares_sets_of_other_classes(cache: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.parquet"
    why = "the logits of sun are over other classes (classes-4) than those of photos (classes-3): run sun with"
    assert main(["metrics", str(cache), "--only", "detection", "-o", str(table)]) == 0
    found = numbers(table)
    assert found["pets", "msp"][0] is not None
    assert {score for of, score in found if of == "photos"} >= {"msp", "energy"}
    for (of, score), (value, reason) in found.items():
        if of == "photos":
            assert value is None, score
            assert reason.startswith(why), score
    means = read_results(table).filter(pl.col("dataset") == "", pl.col("id_dataset") == "photos")
    assert means["value"].null_count() == len(means) > 0

    for of in ("pets", "photos"):
        words = ["ood", str(cache), "--id", of, "--detectors", "msp,energy", "-o", str(tmp_path / f"{of}.parquet")]
        main(words)
    assert numbers(tmp_path / "pets.parquet")["pets", "msp"][0] is not None
    value, reason = numbers(tmp_path / "photos.parquet")["photos", "msp"]
    assert value is None
    assert reason.startswith(why)

    drawn, _ = curves(cache_schema.open_cache(cache), kinds=("roc", "score_histogram"))
    assert set(drawn.filter(pl.col("curve") == "roc")["id_dataset"]) == {"pets"}


def test_hyper_parameters_are_not_chosen_on_a_set_over_other_classes(
    cache: Path, toy_store: Any, tmp_path: Path
) -> None:
    toy_store(n=90, n_classes=3, model="m", dataset="moon", role="ood", card={"class_space": "classes-3"})
    words = ["ood", str(cache), "--id", "pets", "--detectors", "gen", "--validation", "pets:0.5", "--sweep"]
    main([*words, "moon", "-o", str(tmp_path / "r.parquet")])
    rows = read_results(tmp_path / "r.parquet").filter(pl.col("score") == "gen")
    assert rows["value"].is_null().all()
    assert rows["reason"].str.contains("logits of moon are over other classes").all()
