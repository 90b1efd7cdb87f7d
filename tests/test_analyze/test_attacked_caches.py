"""Stores that an attacker changed, among good ones: the good ones' numbers are as ever, the others are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from store_changes import CHANGES, change_json, seal_zarr, zarr_document
from store_mutations import SECRET

from analyze.cli import main
from cache_schema.format.schema import FORMAT

ORDER = ["model", "dataset", "metric", "score", "calibrator", "subset", "id_dataset"]


def numbers(cache: Path, out: Path) -> tuple[int, pl.DataFrame]:
    code = main(["metrics", str(cache), "-o", str(out), "--jobs", "1", "--only", "top1,ece,nll,auroc,invalid_images"])
    return code, pl.read_parquet(out)


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_good_stores_keep_their_numbers(toy_store, tmp_path, capsys, backend):
    cache, rng = tmp_path / "cache", np.random.default_rng(11)
    for seed, model in enumerate(("good-a", "good-b")):
        toy_store(cache=cache, model=model, seed=seed, backend=backend)
        toy_store(cache=cache, model=model, seed=seed, dataset="far", role="ood", n=80, backend=backend)
    code, expected = numbers(cache, tmp_path / "before.parquet")
    assert code == 0
    for number in range(12):
        store = toy_store(
            cache=cache, model=f"bad-{number}", seed=number, backend=backend, metadata={"a": np.arange(200)}
        )
        (store.path.parent / "secret").write_bytes(SECRET)
        change = CHANGES[backend][number % len(CHANGES[backend])]
        change(store.path, rng)
    capsys.readouterr()
    code, table = numbers(cache, tmp_path / "after.parquet")
    captured = capsys.readouterr()
    assert code == 1
    assert "Traceback" not in captured.err + captured.out
    left_out = [line for line in captured.err.splitlines() if line.startswith(("left out", "failed"))]
    assert 3 <= len(left_out) <= 12
    good = table.filter(pl.col("model").is_in(["good-a", "good-b"]))
    assert_frame_equal(good.sort(ORDER), expected.sort(ORDER), check_column_order=False)


def test_accepted_headers_do_not_stop_the_others(toy_store, tmp_path, capsys):
    """Changes of cards that the format allows: whatever they do to their own model, the other's numbers are there."""
    cache = tmp_path / "cache"
    toy_store(cache=cache, model="good")
    _, expected = numbers(cache, tmp_path / "before.parquet")
    rng = np.random.default_rng(5)
    for number in range(40):
        store = toy_store(cache=cache, model=f"bad-{number}", seed=number, n=60)
        document = zarr_document(store.path)
        header = document["attributes"][FORMAT]
        part = ("model", "dataset", "details", "record")[number % 4]
        header[part] = change_json(header[part], rng)
        seal_zarr(store.path, document)
    capsys.readouterr()
    _, table = numbers(cache, tmp_path / "after.parquet")
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    good = table.filter(pl.col("model") == "good")
    assert_frame_equal(good.sort(ORDER), expected.sort(ORDER), check_column_order=False)
    shutil.rmtree(cache)
