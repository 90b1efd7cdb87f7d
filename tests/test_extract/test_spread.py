"""``analyze ... --engine ray``: the same numbers from a cluster, also from one that loses a worker and a node."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from ray_clusters import cluster_of_two

import cache_schema
from analyze.cli import main
from analyze.evaluate import evaluate, factor_tables, pairing, spread, whole_cache
from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Running
from analyze.ood import work
from closerlook_common import cluster
from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError

N_MODELS, N_IMAGES, N_CLASSES = 5, 400, 12


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    write_cache(tmp_path / "cache", n_models=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["metrics", str(tmp_path / "cache"), "--engine", "ray", "-o", str(tmp_path / "r.parquet")]) == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines() == [f"analyze: this command needs ray: {install_line('ray')}"]


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


@pytest.fixture(scope="module")
def two_nodes():
    """Start one cluster for all tests of this file; the last one takes a node away."""
    found, second = cluster_of_two(num_cpus=1)
    try:
        yield found, second
    finally:
        ray.shutdown()
        found.shutdown()


def write_zero_shot_cache(path: Path) -> None:
    """Write zero-shot models with embeddings, heads of two prompt sets, an annotated set, a subset and an OOD set."""
    rng = np.random.default_rng(4)
    names = tuple(f"class {c}" for c in range(N_CLASSES))
    centres = rng.normal(size=(N_CLASSES, 16))
    labels = rng.integers(0, N_CLASSES, 150)
    mask = (1, 3, 4)
    for index in range(3):
        card = cache_schema.ModelCard(id=f"clip-{index}", head_kind="zero-shot", logit_scale=20.0)
        for prompts in ("a", "b"):
            total = centres + rng.normal(size=centres.shape) * 0.3
            weight = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
            cache_schema.write_head(
                path, model=card, class_space="twelve", class_names=names, prompt_set=prompts, weight=weight,
                bias=np.zeros(N_CLASSES, np.float32), logit_scale=20.0, normalize_features=True,
                text_sum=total.astype(np.float32),
            )  # fmt: skip
        head = cache_schema.open_cache(path).head(card.id, "twelve", "a")
        for dataset, role, seen in (
            ("val", "id", labels),
            ("few", "shift", np.array(mask)[labels % 3]),
            ("noise", "ood", None),
        ):
            there = np.zeros_like(labels) if seen is None else seen
            features = (centres[there] * (seen is not None) + rng.normal(size=(150, 16))).astype(np.float32)
            cache_schema.write_store(
                path,
                model=card,
                dataset=cache_schema.DatasetCard(
                    id=dataset, role=role, class_space="twelve", n_classes=N_CLASSES, class_names=names,
                    class_mask=mask if dataset == "few" else None,
                ),
                logits=head.logits(features),
                features=features,
                labels=np.full(150, -1) if seen is None else seen,
                image_ids=[f"{dataset}/{i}.png" for i in range(150)],
                metadata={"pose": (labels % 2).tolist()} if dataset == "val" else {},
                record={"prompt_set": "a"},
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_command_over_a_cache_gives_the_same_numbers_on_a_cluster(tmp_path: Path, two_nodes, capsys) -> None:
    cache = tmp_path / "cache"
    write_zero_shot_cache(cache)
    running, _ = two_nodes
    commands = {
        "ood": ["ood", "--detectors", "msp,energy,mcm,klm", "--validation", "val:0.4"],
        "prompts": ["prompts", "--prompts", "a,b,a+b", "--only", "accuracy,ece"],
        "factors": ["factors", "--columns", "pose"],
        "compare": ["compare", "clip-0", "clip-1", "--bootstrap", "20", "--diversity"],
    }
    with cluster.connected(running.address):
        for name, (command, *options) in commands.items():
            models = [options.pop(0) for word in list(options) if word.startswith("clip")]
            words = [command, str(cache), *models, *options]
            here, there = tmp_path / f"{name}.parquet", tmp_path / f"{name}-ray.parquet"
            assert main([*words, "-o", str(here)]) == 0
            assert main([*words, "-o", str(there), "--engine", "ray"]) == 0
            expected = pl.read_parquet(here)
            assert len(expected) > 10
            assert_frame_equal(pl.read_parquet(there), expected, check_exact=True, check_row_order=name != "ood")
            # All of it came from the nodes, and was kept: this machine has nothing left to compute.
            with pytest.MonkeyPatch.context() as patch:
                for where in (whole_cache, factor_tables, pairing):
                    patch.setattr(where, "build_cases", None)
                patch.setattr(work, "score_model", None)
                assert main([*words, "-o", str(there)]) == 0
            assert_frame_equal(pl.read_parquet(there), expected, check_exact=True, check_row_order=name != "ood")
        capsys.readouterr()
        for engine in ("local", "ray"):
            assert main(["summarize", str(cache), "--to", str(tmp_path / engine), "--engine", engine]) == 0
            assert "12 summaries written" in " ".join(capsys.readouterr().err.split())
        here, there = (
            {
                (store.model.id, store.dataset.id, store.variant): store.digest
                for store in cache_schema.open_cache(tmp_path / engine).stores("summary")
            }
            for engine in ("local", "ray")
        )
        assert len(here) == 12
        assert here == there
        assert main(["summarize", str(cache), "--to", str(tmp_path / "ray"), "--engine", "ray"]) == 0
        assert "0 summaries written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_failures_cells_and_needs(tmp_path: Path, two_nodes) -> None:
    write_cache(tmp_path / "cache", n_models=3)
    running, _ = two_nodes
    cache = cache_schema.open_cache(tmp_path / "cache")
    cells = Cells(None)
    ray_engine = Running(engine="ray")
    parts: list[tuple[str, int, int]] = []
    with cluster.connected(running.address):
        noted = replace(ray_engine, progress=lambda *x: parts.append(x))
        first = evaluate(cache, only=["accuracy"], models=["model-0", "model-1"], cells=cells, running=noted)
        assert sorted(parts) in ([("model-0", 1, 2), ("model-1", 2, 2)], [("model-0", 2, 2), ("model-1", 1, 2)])
        here = evaluate(cache, only=["accuracy"], models=["model-0", "model-1"])
        assert (first.computed, first.reused) == (here.computed, 0)
        assert_frame_equal(first.table, here.table, check_exact=True)
        again = evaluate(cache, only=["accuracy"], cells=cells, running=ray_engine)
        assert (again.computed, again.reused) == (here.computed // 2, here.computed)
        # One model's store is damaged: that model fails, the others are there.
        shard = next((cache.store("model-2", "val").path / "logits").rglob("c/0/0"))
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        local = evaluate(cache_schema.open_cache(tmp_path / "cache"))
        spread_out = evaluate(cache_schema.open_cache(tmp_path / "cache"), running=ray_engine)
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

    def slowly(plugins: Any, where: str, plan: Any, model: str, *rest):
        """Say which process is at which model, wait to be harmed, then do the real work."""
        from analyze.evaluate import spread as on_the_node

        (pids / f"{model}.{os.getpid()}").touch()
        deadline = time.monotonic() + 400
        while not harmed.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return on_the_node._one_work_on_node(plugins, where, plan, model, *rest)

    monkeypatch.setattr(spread, "_one_work_on_node", slowly)
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
