"""Two folders that are both taken as in-distribution: every command runs, or names the option that decides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analyze.cli import main
from analyze.interactive import Results
from analyze.results import read_results
from analyze.results.quantities import Quantity, SeveralNumbersError, quantities, unambiguous
from analyze.trends import default_pairs
from cache_schema.cli import main as cache_main

Capture = pytest.CaptureFixture[str]
DECIDES = r"--(id|x|where|role|shift-of|near)\b|\[\w+="
"""An option, or a variant in brackets, that settles what is meant."""


def fill(toy_store: Any, sets: dict[str, str], models: int) -> None:
    for number in range(models):
        for dataset, role in sets.items():
            features = np.random.default_rng(number).normal(size=(90, 4)).astype(np.float32)
            toy_store(
                n=90, n_classes=4, seed=10 * number + len(dataset), skill=1 + number, model=f"m{number}",
                dataset=dataset, role=role, features=features, scale=9.0 if number % 3 == 1 else None,
                metadata={"pose": np.array(["top", "side", "front"] * 30)},
            )  # fmt: skip


@pytest.fixture
def two(toy_store: Any, tmp_path: Path) -> Path:
    fill(toy_store, {"pets": "id", "photos": "id", "sun": "ood"}, 4)
    return tmp_path / "cache"


def commands(cache: Path, table: Path, folder: Path) -> dict[str, list[str]]:
    source = str(table)
    return {
        "metrics": ["metrics", str(cache), "-o", source],
        "ood": ["ood", str(cache), "-o", source],
        "ood --id": ["ood", str(cache), "--id", "pets", "--detectors", "msp,energy", "-o", source],
        "factors": ["factors", str(cache), "--columns", "pose", "-o", source],
        "show": ["show", str(cache), "m0"],
        "compare": ["compare", str(cache), "m0", "m1"],
        "table": ["table", source, "--rows", "model", "--columns", "metric"],
        "trends": ["trends", source, "-o", str(folder / "trends"), "--bootstrap", "10"],
        "trends --cache": ["trends", source, "--cache", str(cache), "--bootstrap", "10"],
        "figures": ["figures", source, "--cache", str(cache), "-o", str(folder / "figures"), "--format", "svg"],
        "report": ["report", source, "--cache", str(cache), "-o", str(folder / "report.html")],
    }


@pytest.mark.parametrize("sets", [("pets", "photos"), ("pets", "photos", "sun")], ids=" ".join)
@pytest.mark.parametrize("models", [1, 4])
def test_every_command_runs_or_names_what_decides(
    sets: tuple[str, ...], models: int, toy_store: Any, tmp_path: Path, capsys: Capture
) -> None:
    fill(toy_store, {name: "ood" if name == "sun" else "id" for name in sets}, models)
    codes = {}
    for name, words in commands(tmp_path / "cache", tmp_path / "results.parquet", tmp_path).items():
        codes[name] = main(words)
        printed = capsys.readouterr()
        assert "ambiguous" not in printed.err + printed.out, name
        if codes[name] and not (models == 1 and name in ("compare", "trends", "trends --cache")):
            assert re.search(DECIDES, printed.err), f"{name}: {printed.err}"
    refused = {"ood"} | ({"ood --id"} if "sun" not in sets else set())
    refused |= {"compare", "trends", "trends --cache"} if models == 1 else {"trends --cache"}
    assert {name for name, code in codes.items() if code} == refused


def test_trends_qualify_what_two_sets_give_and_name_the_axis(two: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "results.parquet"
    assert main(["metrics", str(two), "-o", str(table)]) == 0
    assert main(["trends", str(table), "-o", str(tmp_path), "--bootstrap", "10"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "2 in-distribution sets (pets, photos): pets is taken; to take another, --x top1@photos." in printed
    assert "dataset CACHE photos --role shift --shift-of pets" in printed
    listed = pl.read_csv(tmp_path / "correlations.csv")["y"].unique().to_list()
    assert {"auroc@sun[id_dataset=pets]", "auroc@sun[id_dataset=photos]"} <= set(listed)
    assert "auroc@sun" not in listed
    assert main(["trends", str(table), "--x", "top1@photos", "--bootstrap", "10"]) == 0
    assert "in-distribution sets" not in capsys.readouterr().err


def test_what_means_several_numbers_says_how_each_is_written(two: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.parquet"
    assert main(["metrics", str(two), "-o", str(table)]) == 0
    results = Results(table)
    with pytest.raises(SeveralNumbersError, match=r"auroc@sun\[id_dataset=pets\] or auroc@sun\[id_dataset=photos\]"):
        results.trend("auroc@sun")
    assert len(results.values("auroc@sun[id_dataset=photos]")) == 4
    for x, y in default_pairs(results.frame):
        assert len(results.values(x))
        results.values(y)  # none of them means several numbers


def test_every_quantity_that_is_written_is_read_again(two: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.parquet"
    assert main(["metrics", str(two), "-o", str(table)]) == 0
    frame = read_results(table)
    options = ('{"a":1,"b":[2,"x=y"]}', '{"a":2}')
    several = pl.concat([frame.with_columns(options=pl.lit(text)) for text in options])
    for found in quantities(several):
        assert Quantity.parse(str(found)) == found
    choices = unambiguous(several, Quantity("auroc", "sun", (("id_dataset", "pets"),)))
    assert len(choices) == 2
    assert all(Quantity.parse(str(choice)) == choice for choice in choices)


def test_scores_of_fits_on_different_sets_are_not_compared(two: Path, tmp_path: Path) -> None:
    """The temperature of one set on the one side and of another on the other gives no AUROC."""
    table = tmp_path / "results.parquet"

    def reasons() -> dict[str, tuple[float | None, str]]:
        assert main(["metrics", str(two), "--only", "detection", "-o", str(table)]) == 0
        rows = read_results(table).filter(
            pl.col("metric") == "auroc",
            pl.col("dataset") == "sun",
            pl.col("score") == "tempscale",
            pl.col("model") == "m0",
        )
        return {of: (value, reason) for of, value, reason in rows.select("id_dataset", "value", "reason").rows()}

    before = reasons()
    assert before["pets"][0] is None
    assert "dataset CACHE sun --shift-of pets" in before["pets"][1]
    assert cache_main(["dataset", str(two), "sun", "--shift-of", "pets"]) == 0
    after = reasons()
    assert after["pets"][0] is not None
    assert after["photos"][0] is None
    assert "fitted on pets" in after["photos"][1]
