"""``analyze metrics --engine ray``: the same table from a cluster, also from one that loses a worker and a node."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cache_schema
from analyze.cli import main
from analyze.evaluate import evaluate, spread
from cache_schema import cluster
from cache_schema.errors import UserError

N_MODELS, N_IMAGES, N_CLASSES = 5, 400, 12


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    write_cache(tmp_path / "cache", n_models=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["metrics", str(tmp_path / "cache"), "--engine", "ray", "-o", str(tmp_path / "r.parquet")]) == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines() == ["analyze: this command needs ray: pip install 'closerlook[ray]'"]


def write_cache(path: Path, n_models: int = N_MODELS) -> None:
    """Write models with a labelled set, a shifted one and an OOD set."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, N_CLASSES, N_IMAGES)
    for index in range(n_models):
        for dataset, role, skill in (("val", "id", 3.0), ("sketch", "shift", 1.5), ("noise", "ood", 0.0)):
            logits = rng.normal(size=(N_IMAGES, N_CLASSES)) * (1 + index / 4)
            logits[np.arange(N_IMAGES), labels] += skill
            cache_schema.write_store(
                path,
                model=cache_schema.ModelCard(id=f"model-{index}"),
                dataset=cache_schema.DatasetCard(id=dataset, role=role),
                logits=logits.astype(np.float32),
                labels=np.full(N_IMAGES, -1) if role == "ood" else labels,
            )


ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


@pytest.fixture
def two_nodes():
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = found.add_node(num_cpus=1)
    found.wait_for_nodes()
    try:
        yield found, second
    finally:
        ray.shutdown()
        found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its processes that are killed here on purpose
def test_a_cluster_that_loses_a_worker_and_a_node_gives_the_same_table(
    tmp_path: Path, two_nodes, monkeypatch, capsys
) -> None:
    write_cache(tmp_path / "cache")
    whole = tmp_path / "whole.parquet"
    words = ["metrics", str(tmp_path / "cache"), "--bootstrap", "20"]
    assert main([*words, "-o", str(whole)]) == 0
    running, second = two_nodes
    pids = tmp_path / "pids"
    pids.mkdir()
    harmed = tmp_path / "harmed"

    def slowly(where: str, model: str, *rest):
        """Say which process is at which model, wait to be harmed, then do the real work."""
        from analyze.evaluate import spread as on_the_node

        (pids / f"{model}.{os.getpid()}").touch()
        deadline = time.monotonic() + 400
        while not harmed.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return on_the_node._one_model(where, model, *rest)

    monkeypatch.setattr(spread, "_one_model", slowly)
    lost: list[str] = []

    def harm() -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and len(list(pids.iterdir())) < 2:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(next(pids.iterdir()).suffix[1:]), signal.SIGKILL)
            lost.append("worker")
        running.remove_node(second, allow_graceful=False)
        lost.append("node")
        harmed.touch()

    thread = threading.Thread(target=harm)
    thread.start()
    spreaded = tmp_path / "spread.parquet"
    assert main([*words, "-o", str(spreaded), "--engine", "ray", "--address", running.address]) == 0
    thread.join()
    assert lost == ["worker", "node"]
    # Some model was begun by more than one process: a loss was felt, and made good.
    begun = [path.stem for path in pids.iterdir()]
    assert len(begun) > len(set(begun)) == N_MODELS
    assert_frame_equal(pl.read_parquet(spreaded), pl.read_parquet(whole), check_exact=True)
    # All of it came from the nodes: this machine finds nothing left to compute.
    assert main([*words, "-o", str(spreaded)]) == 0
    assert "0 cells computed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_failures_cells_and_needs(tmp_path: Path, two_nodes) -> None:
    write_cache(tmp_path / "cache", n_models=3)
    running, _ = two_nodes
    cache = cache_schema.open_cache(tmp_path / "cache")
    cells = spread.Cells(None)
    told: list[tuple[str, int, int]] = []
    with cluster.connected(running.address):
        first = spread.evaluate_on_cluster(
            cache, only=["accuracy"], models=["model-0", "model-1"], cells=cells, progress=lambda *x: told.append(x)
        )
        assert sorted(told) in ([("model-0", 1, 2), ("model-1", 2, 2)], [("model-0", 2, 2), ("model-1", 1, 2)])
        here = evaluate(cache, only=["accuracy"], models=["model-0", "model-1"])
        assert (first.computed, first.reused) == (here.computed, 0)
        assert_frame_equal(first.table, here.table, check_exact=True)
        again = spread.evaluate_on_cluster(cache, only=["accuracy"], cells=cells)
        assert (again.computed, again.reused) == (here.computed // 2, here.computed)
        # One model's store is damaged: that model fails, the others are there.
        shard = next((cache.store("model-2", "val").path / "logits").rglob("c/0/0"))
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        local = evaluate(cache_schema.open_cache(tmp_path / "cache"))
        spread_out = spread.evaluate_on_cluster(cache_schema.open_cache(tmp_path / "cache"))
        assert_frame_equal(spread_out.table, local.table, check_exact=True)
        assert set(spread_out.failures) == set(local.failures)
        with pytest.raises(UserError, match=r"a job needs 64 cores.*no node of the Ray cluster"):
            list(cluster.run_calls(len, [("x",)], [cluster.Needs(cpus=64)]))
        calls = [("1",), ("x",), ("3",)]
        results = dict(cluster.run_calls(lambda text: int(text), calls, [cluster.Needs()] * 3, at_once=1))
        assert (results[0], results[2]) == (1, 3)
        assert isinstance(results[1], ValueError)


@pytest.mark.filterwarnings("ignore")
def test_no_cluster_is_one_line(tmp_path: Path, capsys) -> None:
    write_cache(tmp_path / "cache", n_models=1)
    words = ["metrics", str(tmp_path / "cache"), "-o", str(tmp_path / "r.parquet")]
    assert main([*words, "--engine", "ray", "--address", "127.0.0.1:9"]) == 2
    assert "no Ray cluster at 127.0.0.1:9" in capsys.readouterr().err
