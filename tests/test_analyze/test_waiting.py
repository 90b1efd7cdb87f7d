"""Commands of the analysis say what they wait for. Time is a test's own (`clock`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analyze.cli import main
from analyze.results import table as result_table

Capture = pytest.CaptureFixture[str]


def late(clock: Any, call: Callable[..., Any], seconds: float = 3) -> Callable[..., Any]:
    """Return a function that takes so long and then does what another does."""

    def slow(*args: Any, **options: Any) -> Any:
        clock.advance(seconds)
        return call(*args, **options)

    return slow


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_reading_a_large_result_table_is_stated(
    clock: Any, results: pl.DataFrame, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"results.{suffix}"
    results.head(50).write_parquet(path) if suffix == "parquet" else results.head(50).write_csv(path)
    module, reader = (result_table, "read_flat_parquet") if suffix == "parquet" else (pl, "read_csv")
    monkeypatch.setattr(module, reader, late(clock, getattr(module, reader)))
    assert main(["table", str(path)]) == 0
    assert capsys.readouterr().err.startswith(f"reading {path} ...\n")


def test_trends_say_that_they_are_computed(
    clock: Any, results: pl.DataFrame, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analyze import trends

    results.write_parquet(tmp_path / "results.parquet")
    monkeypatch.setattr(trends, "correlation_table", late(clock, trends.correlation_table))
    assert main(["trends", str(tmp_path / "results.parquet"), "--y", "top1@imagenet-r", "--bootstrap", "19"]) == 0
    assert "computing trends of pairs of numbers (" in capsys.readouterr().err


def test_numbers_of_a_cache_say_that_they_are_computed(
    clock: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cache_schema
    from analyze.evaluate import cases

    rng = np.random.default_rng(0)
    cache_schema.write_store(
        tmp_path / "cache",
        model=cache_schema.ModelCard(id="m"),
        dataset=cache_schema.DatasetCard(id="d", class_space="x", n_classes=3),
        logits=rng.normal(size=(30, 3)),
        labels=np.arange(30) % 3,
        image_ids=[f"{index}.png" for index in range(30)],
    )
    path = tmp_path / "results.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(cases, "summarize", late(clock, cases.summarize))
        assert main(["metrics", str(tmp_path / "cache"), "--only", "top1", "-o", str(path)]) == 0
    assert capsys.readouterr().err.startswith("computing; a line every 20 s ...\n")
