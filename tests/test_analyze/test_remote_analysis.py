"""``analyze`` on a cache at an address: the same numbers, from a static server and from S3, fetched once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cache_schema
from analyze.cli import main
from cache_schema.cli import main as schema

pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")
pytest.importorskip("s3fs", reason="the extra 'remote' is not installed")
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

N, CLASSES = 300, 8
Serve = Callable[..., Any]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two models in Zarr and one in HDF5, on a labelled and an OOD set."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, N)
    for index, backend in enumerate(("zarr", "zarr", "hdf5")):
        for dataset, role in (("val", "id"), ("noise", "ood")):
            logits = rng.normal(size=(N, CLASSES)).astype(np.float32)
            logits[np.arange(N), labels] += 2.0 if role == "id" else 0.0
            cache_schema.write_store(
                tmp_path / "cache",
                model=cache_schema.ModelCard(id=f"model-{index}"),
                dataset=cache_schema.DatasetCard(id=dataset, role=role),
                logits=logits,
                labels=labels if role == "id" else np.full(N, -1),
                backend=backend,
            )
    return tmp_path / "cache"


def table(*words: str, output: Path) -> pl.DataFrame:
    assert main(["metrics", *words, "-o", str(output)]) == 0
    return pl.read_parquet(output)


def test_metrics_of_a_cache_on_a_server_equal_those_of_the_folder(cache: Path, serve: Serve, tmp_path: Path) -> None:
    web = serve(cache)
    want = table(str(cache), output=tmp_path / "here.parquet")
    assert_frame_equal(table(web.address, output=tmp_path / "there.parquet"), want, check_exact=True)
    assert any("/logits/" in path for path in web.files())
    assert any(path.endswith(".h5") for path in web.files())
    # What was fetched lies on this machine: computing everything again fetches headers, and of HDF5 the file's end.
    web.asked.clear()
    assert_frame_equal(table(web.address, "--fresh", output=tmp_path / "there.parquet"), want, check_exact=True)
    assert {path.rpartition("/")[2] for path in web.files() if ".zarr/" in path} == {"zarr.json"}
    assert len([path for path in web.files() if ".zarr/" in path]) == 4
    assert len([path for path in web.files() if path.endswith(".h5")]) == 2


def test_features_are_not_fetched_for_metrics_of_logits(serve: Serve, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n, width = 4_000, 200
    store = cache_schema.write_store(
        tmp_path / "cache",
        model=cache_schema.ModelCard(id="m"),
        dataset=cache_schema.DatasetCard(id="val", role="id"),
        logits=rng.normal(size=(n, CLASSES)).astype(np.float32),
        features=rng.normal(size=(n, width)).astype(np.float32),
        labels=rng.integers(0, CLASSES, n),
    )
    web = serve(tmp_path / "cache")
    table(web.address, "--only", "top1,ece", output=tmp_path / "there.parquet")
    assert not [path for path in web.files() if "/features/c/" in path]
    assert web.n_bytes() < store.n_bytes() / 5


def test_metrics_of_summaries_fetch_nothing_else(cache: Path, serve: Serve, tmp_path: Path) -> None:
    """Where the big stores are there too, they are used; a cache of summaries alone is asked for no other thing."""
    assert main(["summarize", str(cache), "--to", str(tmp_path / "small")]) == 0
    web = serve(tmp_path / "small")
    words = ("--only", "top1,ece,nll,auroc")
    want = table(str(tmp_path / "small"), *words, output=tmp_path / "here.parquet")
    assert_frame_equal(table(web.address, *words, output=tmp_path / "there.parquet"), want, check_exact=True)
    got = [path for path in web.files() if ".zarr" in path]
    assert len(got) > 6 * 10
    assert all("/summaries/" in path for path in got)
    assert len(got) == len(set(got)), "no file is fetched twice"


@pytest.mark.parametrize("command", ["show", "compare", "summarize", "ood", "prompts"])
def test_other_commands_take_an_address(command: str, cache: Path, serve: Serve, tmp_path: Path, capsys) -> None:
    web = serve(cache)
    words = {
        "show": ["show", web.address, "model-0"],
        "compare": ["compare", web.address, "model-0", "model-2", "--pair-by-row"],
        "summarize": ["summarize", web.address, "--to", str(tmp_path / "small")],
        "ood": ["ood", web.address, "--id", "val", "--detectors", "msp", "-o", str(tmp_path / "ood.parquet")],
        "prompts": ["prompts", web.address, "-o", str(tmp_path / "prompts.parquet")],
    }[command]
    code = main(words)
    captured = capsys.readouterr()
    assert code == (2 if command == "prompts" else 0), captured.err  # this cache has no prompt sets
    assert "Traceback" not in captured.err
    assert not (Path.cwd() / "http:").exists()


@pytest.mark.parametrize("place", ["server", "bucket"])
def test_a_report_of_a_cache_at_an_address_equals_that_of_the_folder(
    place: str, cache: Path, serve: Serve, bucket: Any, tmp_path: Path
) -> None:
    if place == "bucket":
        assert schema(["push", str(cache), bucket.cache]) == 0
    address = bucket.cache if place == "bucket" else serve(cache).address
    results = tmp_path / "results.parquet"
    table(address, "--only", "top1,ece,auroc", output=results)
    here, there = tmp_path / "here.html", tmp_path / "there.html"
    assert main(["report", str(results), "--cache", str(cache), "-o", str(here)]) == 0
    assert main(["report", str(results), "--cache", address, "-o", str(there)]) == 0
    assert b"model-2" in there.read_bytes()
    assert there.read_bytes() == here.read_bytes()
    assert main(["report", address, "-o", str(tmp_path / "computed.html")]) == 0
    assert b"model-2" in (tmp_path / "computed.html").read_bytes()


@pytest.mark.parametrize("only", ["summaries", "model-1", "noise"])
@pytest.mark.parametrize("place", ["server", "bucket"])
def test_a_part_of_a_cache_is_pulled(
    only: str, place: str, cache: Path, serve: Serve, bucket: Any, tmp_path: Path
) -> None:
    assert main(["summarize", str(cache)]) == 0
    if place == "bucket":
        assert schema(["push", str(cache), bucket.cache]) == 0
    address = bucket.cache if place == "bucket" else serve(cache).address
    every = list(cache_schema.open_cache(cache).stores())
    wanted = [s for s in every if only in ("summaries" if s.kind == "summary" else "", s.model.id, s.dataset.id)]
    assert 0 < len(wanted) < len(every)
    assert schema(["pull", address, str(tmp_path / "part"), "--only", only]) == 0
    assert {s.digest for s in cache_schema.open_cache(tmp_path / "part").stores()} == {s.digest for s in wanted}


def test_summaries_are_written_to_no_address(cache: Path, serve: Serve, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["summarize", serve(cache).address]) == 2
    error = capsys.readouterr().err
    assert "--to FOLDER" in error
    assert "push" in error
    assert error.count("\n") == 1
    assert main(["summarize", str(cache), "--to", "s3://bucket/cache"]) == 2
    assert not list(tmp_path.glob("*:"))


def test_a_laptop_pulls_summaries_alone_and_has_the_numbers(cache: Path, bucket: Any, tmp_path: Path) -> None:
    assert main(["summarize", str(cache)]) == 0
    assert schema(["push", str(cache), bucket.cache, "--summaries"]) == 0
    assert schema(["pull", bucket.cache, str(tmp_path / "laptop"), "--summaries"]) == 0
    pulled = cache_schema.open_cache(tmp_path / "laptop")
    assert {store.kind for store in pulled.stores()} == {"summary"}
    words = ("--only", "top1,ece,nll,auroc")
    from_s3 = table(bucket.cache, *words, output=tmp_path / "s3.parquet")
    from_laptop = table(str(tmp_path / "laptop"), *words, output=tmp_path / "laptop.parquet")
    assert_frame_equal(from_s3, from_laptop, check_exact=True)
    full = table(str(cache), *words, output=tmp_path / "full.parquet")
    keys = ["model", "dataset", "metric", "score", "calibrator", "subset", "head"]
    both = from_laptop.join(full, on=keys, suffix="_full").filter(pl.col("value").is_not_nan())
    assert both["metric"].n_unique() == 4
    np.testing.assert_allclose(both["value"], both["value_full"], rtol=1e-5, atol=1e-6)
