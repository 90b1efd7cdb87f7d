"""``analyze`` on a cache at an address: the same numbers, from a static server and from S3, fetched once."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cache_schema
from analyze.cli import main
from cache_schema.cli import main as schema

pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")
pytest.importorskip("s3fs", reason="the extra 'remote' is not installed")
moto_server = pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)

N, CLASSES = 300, 8


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


@pytest.fixture
def web(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Return the address of a static server of the cache, and what it was asked for."""
    monkeypatch.setenv("CLOSERLOOK_MIRROR", str(tmp_path / "mirror"))
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(cache)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def table(*words: str, output: Path) -> pl.DataFrame:
    assert main(["metrics", *words, "-o", str(output)]) == 0
    return pl.read_parquet(output)


def test_metrics_of_a_cache_on_a_server_equal_those_of_the_folder(cache, web, tmp_path: Path) -> None:
    address, asked = web
    want = table(str(cache), output=tmp_path / "here.parquet")
    assert_frame_equal(table(address, output=tmp_path / "there.parquet"), want, check_exact=True)
    rows = [path for path in asked if "/logits/" in path or path.endswith(".h5")]
    assert rows
    # What was fetched lies on this machine: computing everything again fetches no row again.
    asked.clear()
    assert_frame_equal(table(address, "--fresh", output=tmp_path / "there.parquet"), want, check_exact=True)
    assert not [path for path in asked if "/logits/" in path]
    assert not [path for path in asked if "/features/" in path]


def test_a_laptop_pulls_summaries_alone_and_has_the_numbers(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
            "CLOSERLOOK_MIRROR": str(tmp_path / "mirror"),
        }.items():
            monkeypatch.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("laptop")
        assert main(["summarize", str(cache)]) == 0
        assert schema(["push", str(cache), "s3://laptop/cache", "--summaries"]) == 0
        assert schema(["pull", "s3://laptop/cache", str(tmp_path / "laptop"), "--summaries"]) == 0
        pulled = cache_schema.open_cache(tmp_path / "laptop")
        assert {store.kind for store in pulled.stores()} == {"summary"}
        words = ("--only", "top1,ece,nll,auroc")
        from_s3 = table("s3://laptop/cache", *words, output=tmp_path / "s3.parquet")
        from_laptop = table(str(tmp_path / "laptop"), *words, output=tmp_path / "laptop.parquet")
        assert_frame_equal(from_s3, from_laptop, check_exact=True)
        full = table(str(cache), *words, output=tmp_path / "full.parquet")
        keys = ["model", "dataset", "metric", "score", "calibrator", "subset", "head"]
        both = from_laptop.join(full, on=keys, suffix="_full").filter(pl.col("value").is_not_nan())
        assert both["metric"].n_unique() == 4
        np.testing.assert_allclose(both["value"], both["value_full"], rtol=1e-5, atol=1e-6)
    finally:
        server.stop()
