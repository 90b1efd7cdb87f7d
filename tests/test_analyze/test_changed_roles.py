"""A dataset whose role changes: no number, row or summary of the old role outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze.cli import main
from analyze.results import KEY_COLUMNS, read_results
from cache_schema.cli import main as cache_main

Capture = pytest.CaptureFixture[str]
SETS = {
    "val": {"role": "id"},
    "other": {"role": "id"},
    "sun": {"role": "ood", "distance": "near"},
    "noise": {"role": "ood", "distance": "far"},
}
CHANGES = [
    ("other", "--role", "shift", "--shift-of", "val"),
    ("other", "--role", "ood", "--distance", "near"),
    ("sun", "--distance", "far"),
    ("val", "--role", "shift", "--shift-of", "other"),
]


@pytest.fixture
def cache(tmp_path: Path, toy_store: Any) -> Path:
    for dataset, card in SETS.items():
        for number, model in enumerate(("a", "b")):
            width = np.random.default_rng(number).normal(size=(80, 4)).astype(np.float32)
            toy_store(
                n=80, n_classes=4, seed=number + len(dataset), model=model, dataset=dataset, features=width,
                role=card["role"], card={"distance": card.get("distance", "")},
            )  # fmt: skip
    return tmp_path / "cache"


def change(cache: Path, words: tuple[str, ...]) -> None:
    assert cache_main(["dataset", str(cache), *words]) == 0


def analyse(cache: Path, output: Path, inside: str = "val") -> pl.DataFrame:
    words = ["--only", "accuracy,calibration,detection,subsets", "--jobs", "1"]
    assert main(["metrics", str(cache), "-o", str(output), *words]) == 0
    assert main(["ood", str(cache), "--id", inside, "--detectors", "msp,energy", "-o", str(output)]) == 0
    return read_results(output)


def comparable(table: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(table.with_columns(pl.col("value").round(9)).select(pl.all().cast(pl.String).fill_null("")).rows())


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: " ".join(words[:3]))
def test_a_resumed_table_equals_one_computed_afresh(cache: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    inside = "other" if words[0] == "val" else "val"
    before = analyse(cache, tmp_path / "kept.parquet", inside if words[0] != "val" else "other")
    change(cache, words)
    kept, fresh = analyse(cache, tmp_path / "kept.parquet", inside), analyse(cache, tmp_path / "new.parquet", inside)
    assert comparable(kept) == comparable(fresh)
    assert comparable(kept) != comparable(before)
    assert not kept.select(KEY_COLUMNS).is_duplicated().any()


def test_rows_of_other_commands_are_removed_or_named(cache: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "results.parquet"
    analyse(cache, output)
    table = read_results(output)
    of_prompts = table.filter(pl.col("dataset") == "other", pl.col("metric") == "top1").with_columns(
        command=pl.lit("prompts"), head=pl.lit("photo-1")
    )
    published = of_prompts.with_columns(command=pl.lit("import-results"), head=pl.lit("paper"))
    pl.concat([table, of_prompts, published]).write_parquet(output)
    change(cache, CHANGES[0])
    change(cache, ("sun", "--distance", "far"))
    capsys.readouterr()
    assert main(["metrics", str(cache), "-o", str(output), "--only", "accuracy", "--jobs", "1"]) == 0
    printed = capsys.readouterr().err
    assert "2 rows of 'analyze prompts' on other removed: its role was id and is now shift" in " ".join(printed.split())
    left = read_results(output).filter(pl.col("dataset") == "other")
    assert "prompts" not in left["command"].to_list()
    assert left.filter(pl.col("command") == "import-results").height == 2, "what others published stays"


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: " ".join(words[:3]))
def test_a_summary_made_before_gives_the_same_numbers_or_says_why_not(
    cache: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    small = tmp_path / "small"
    assert main(["summarize", str(cache), "--to", str(small)]) == 0
    for place in (cache, small):
        change(place, words)
    only = ["--only", "accuracy,calibration,detection", "--jobs", "1"]
    assert main(["metrics", str(cache), "-o", str(tmp_path / "big.parquet"), *only]) == 0
    assert main(["metrics", str(small), "-o", str(tmp_path / "small.parquet"), *only]) == 0
    big, summaries = read_results(tmp_path / "big.parquet"), read_results(tmp_path / "small.parquet")
    both = big.join(summaries, on=list(KEY_COLUMNS), suffix="_small")
    assert both.height > 40
    given = both.filter(pl.col("value_small").is_not_null())
    wrong = given.filter((pl.col("value") - pl.col("value_small")).abs() > 1e-6)
    assert wrong.is_empty(), wrong.select(*KEY_COLUMNS, "value", "value_small").rows()
    missing = both.filter(pl.col("value").is_not_null(), pl.col("value_small").is_null())
    reasons = missing.filter(~pl.col("reason_small").str.starts_with("no "))["reason_small"]
    assert all(reason.endswith("summarize again") for reason in reasons), reasons.unique().to_list()
    extra = summaries.join(big, on=list(KEY_COLUMNS), how="anti").filter(pl.col("value").is_not_null())
    assert extra.is_empty(), extra
    # and once they are made again nothing is missing, and the role has come along
    assert main(["summarize", str(cache), "--to", str(small)]) == 0
    again = main(["metrics", str(small), "-o", str(tmp_path / "again.parquet"), *only])
    assert again == 0
    left = read_results(tmp_path / "again.parquet")
    left = left.filter(pl.col("reason").str.contains("summarize again"))
    assert left.is_empty(), left.select("model", "dataset", "metric", "score", "reason").rows()[:5]


def test_summaries_elsewhere_get_the_roles(cache: Path, tmp_path: Path) -> None:
    change(cache, CHANGES[0])
    assert main(["summarize", str(cache), "--to", str(tmp_path / "small")]) == 0
    assert cache_schema.open_cache(tmp_path / "small").roles().facts["other"].role == "shift"


@pytest.mark.parametrize("command", ["metrics", "ood", "show", "compare", "factors", "prompts", "summarize"])
def test_no_command_picks_a_role_where_stores_disagree(
    command: str, cache: Path, tmp_path: Path, toy_store: Any, capsys: Capture
) -> None:
    toy_store(n=80, n_classes=4, model="c", dataset="other", role="shift", cache=cache)
    words = {
        "show": ["a"], "compare": ["a", "b"], "factors": ["--columns", "x"], "metrics": ["-o", tmp_path / "r.parquet"],
        "ood": ["--id", "val", "-o", tmp_path / "r.parquet"], "summarize": ["--to", tmp_path / "small"],
    }.get(command, [])  # fmt: skip
    if command == "prompts":
        cache_schema.write_head(
            cache,
            model=cache_schema.open_cache(cache).models()[0],
            class_space="toy",
            class_names=list("wxyz"),
            weight=np.eye(4, dtype=np.float32),
            bias=np.zeros(4, np.float32),
            prompt_set="photo-1",
            affine=True,
            residual=0.0,
            templates=["{}"],
        )
    assert main([command, str(cache), *map(str, words)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "the role of other is unclear" in error
    assert f"dataset {cache} other --role ROLE" in error
