"""What is listed fits a terminal of 80 columns, and of 40."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import cache_schema
from cache_schema.format.failures import record_failure
from cache_schema.format.records import DatasetCard, ModelCard
from extract.cli import main
from extract.commands.listing import Column, Row, print_rows

MODELS = ("convnext_xxlarge.clip_laion2b_soup_ft_in12k_in1k_with_a_name_of_its_own", "short")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "cache"
    for model in MODELS:
        for number in range(25):
            cache_schema.write_store(
                path, model=ModelCard(id=model), dataset=DatasetCard(id=f"set-{number:02d}", class_space="three"),
                logits=np.eye(3, dtype=np.float32), labels=[0, 1, 2], image_ids=list("abc"),
            )  # fmt: skip
    record_failure(path, "short", "broken", "no weights")
    return path


@pytest.mark.parametrize("width", [40, 80, 120])
def test_status_fits(
    cache: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["status", str(cache)]) == 1
    head, _, table = capsys.readouterr().out.partition("\n")
    assert head.endswith(": 50 sealed, 1 failed, 1 missing.")
    lines = table.splitlines()
    assert max(len(line) for line in lines if line not in MODELS) <= width
    assert sum(line.count("●") for line in lines) == 50 + 1, "every store, and the legend"
    assert sum(line.count("✗") for line in lines) == 1 + 1


@pytest.mark.parametrize("width", [40, 80, 120])
def test_listed_rows_fit(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column("model"), *(Column(f"number {i}", right=True) for i in range(9)), Column("remark", prose=True)]
    rows = [Row(["a-model", *("12345678" for _ in range(9)), "what describes it in some words of prose"])]
    print_rows(Console(width=width), columns, rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("12345678") for line in lines) == 9
