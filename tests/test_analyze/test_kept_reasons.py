"""A reason why a number is missing is looked into again: it goes as soon as the number can be had."""

from __future__ import annotations

import polars as pl
import pytest

import cache_schema
from analyze.evaluate import evaluate
from analyze.evaluate.cells import Cells
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.results import KEY_COLUMNS
from analyze.settings import study_defaults


def kept_run(root, path, **how):
    cells = Cells(path)
    found = evaluate(cache_schema.open_cache(root), cells=cells, **how)
    cells.save()
    return found


@pytest.mark.parametrize("dataset", ["val", "v2"])
def test_a_store_that_is_readable_again_gets_its_numbers(toy_store, tmp_path, dataset):
    root, path = tmp_path / "cache", tmp_path / "cells.parquet"
    stores = {name: toy_store(cache=root, dataset=name, role=role) for name, role in (("val", "id"), ("v2", "shift"))}
    chunks = {chunk: chunk.read_bytes() for chunk in (stores[dataset].path / "logits").rglob("c/*/*")}
    for chunk, data in chunks.items():
        chunk.write_bytes(data[:-9])
    damaged = kept_run(root, path).table
    assert damaged.filter(pl.col("dataset") == dataset, pl.col("metric") == "top1")["value"].is_null().all()
    for chunk, data in chunks.items():
        chunk.write_bytes(data)
    repaired = kept_run(root, path).table
    assert repaired.equals(evaluate(cache_schema.open_cache(root)).table)
    assert kept_run(root, path).computed == 0


def test_a_summary_that_was_made_again_gets_its_numbers(toy_store, tmp_path):
    root, light, path = tmp_path / "cache", tmp_path / "light", tmp_path / "cells.parquet"
    toy_store(cache=root)
    toy_store(cache=root, dataset="far", role="ood", n=50)
    toy_store(cache=root, dataset="part", role="shift", n=50, labels=[0, 1] * 25, card={"class_mask": (0, 1)})
    other = study_defaults().updated("ood", gen_m=5).updated("split", seed=4).updated("calibration", classwise_bins=9)
    other = other.updated("accuracy", on_subsets=False).updated("calibrators", bounds=[1.5, 3.0])
    for settings in (other, study_defaults()):
        summarize_cache(cache_schema.open_cache(root), light, settings=settings)
        found = kept_run(light, path).table
        if settings is other:
            assert found.filter(pl.col("calibrator") == "temperature", pl.col("value").is_not_null()).is_empty()
            assert found.filter(pl.col("metric") == "classwise_ece", pl.col("value").is_not_null()).is_empty()
    heavy = evaluate(cache_schema.open_cache(root)).table
    names = [*KEY_COLUMNS, "reason"]
    assert (
        found.join(heavy, on=names, how="anti").select("dataset", "metric", "score", "calibrator", "reason").rows()
        == []
    )
