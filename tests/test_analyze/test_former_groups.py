"""Groups of models that were renamed: older stores, tables and lists are read with the name of today."""

from __future__ import annotations

import numpy as np
import pytest

import cache_schema
from analyze.evaluate import evaluate
from analyze.results import ResultRow, read_results, to_frame, write_results
from cache_schema.format.records import FORMER_GROUPS, GROUPS


@pytest.mark.parametrize(("former", "today"), FORMER_GROUPS.items())
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_former_name_is_read_as_that_of_today(tmp_path, former, today, ending):
    assert today in GROUPS
    assert former not in GROUPS
    assert cache_schema.ModelCard(id="m", group=former).group == today
    assert cache_schema.ModelCard.from_record({"id": "m", "group": former}).group == today
    path = write_results(
        to_frame([ResultRow(model="m", dataset="val", metric="top1", value=0.5, group=former)]),
        tmp_path / f"t.{ending}",
    )
    assert read_results(path)["group"].to_list() == [today]


def test_a_store_with_a_former_name_opens_and_its_rows_have_that_of_today(tmp_path, monkeypatch):
    monkeypatch.setattr("cache_schema.format.records.FORMER_GROUPS", {})
    monkeypatch.setattr("cache_schema.format.records.GROUPS", {**GROUPS, **FORMER_GROUPS})
    rng = np.random.default_rng(0)
    cache_schema.write_store(
        tmp_path / "cache",
        model=cache_schema.ModelCard(id="m", group="contrastive"),
        dataset=cache_schema.DatasetCard(id="val", role="id", class_space="toy", n_classes=5),
        logits=rng.normal(size=(60, 5)).astype(np.float32),
        labels=rng.integers(0, 5, 60),
    )
    monkeypatch.undo()
    assert cache_schema.open_cache(tmp_path / "cache").store("m", "val").model.group == "self-supervised"
    table = evaluate(cache_schema.open_cache(tmp_path / "cache"), only=["accuracy"]).table
    assert set(table["group"]) == {"self-supervised"}
