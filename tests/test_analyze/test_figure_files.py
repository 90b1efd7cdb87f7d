"""What `analyze figures` leaves on the disk, and what it says of words that it does not know."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analyze.cli import main
from analyze.figures import FIGURES
from analyze.figures.pages import prepare, save
from analyze.results import write_results


def test_saving_twice_gives_the_same_bytes_and_the_numbers(results: pl.DataFrame, tmp_path: Path) -> None:
    data = prepare("shape_bias", results)
    for folder in ("a", "b"):
        save("shape_bias", data, tmp_path / folder, formats=["pdf", "svg", "png"], width="icml-column")
    for suffix in ("pdf", "svg", "png", "csv"):
        first, second = ((tmp_path / folder / f"shape_bias.{suffix}").read_bytes() for folder in "ab")
        assert first == second
        assert len(first) > 500
    back = pl.read_csv(tmp_path / "a" / "shape_bias.csv", infer_schema_length=None)
    assert back["y"].to_list() == data["y"].to_list()


def test_command(results: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_results(results, tmp_path / "r.parquet")
    words = ["figures", str(source), "-o", str(tmp_path / "f"), "--only", "prompts,ranks", "--format", "png"]
    assert main(words) == 0
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"prompts.png", "prompts.csv", "ranks.png", "ranks.csv"}
    assert main(["figures", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in FIGURES)
    for wrong, text in (
        (["--only", "odo"], "did you mean ood"),
        (["--only", "roc"], "--cache"),
        (["--only", "ranks", "--format", "gif"], "no format 'gif'; there are pdf, svg, png"),
        (["--only", "corruptions"], "corruption"),
    ):
        assert main(["figures", str(source), "-o", str(tmp_path / "g"), *wrong]) == 2
        assert text.lower() in capsys.readouterr().err.lower()
