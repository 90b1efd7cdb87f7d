"""A local cluster of two nodes loses a worker and a node in the middle; its cache equals an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cache_schema
from cache_schema.errors import UserError

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

MODELS = "\n".join(
    f"timm:{name} allow_random=yes seed={i} num_classes=3 classes=pets input_size={size} crop_pct=1.0 id=m{i}"
    for i, (name, size) in enumerate((("test_vit", 64), ("test_resnet", 48), ("test_resnet", 56), ("test_byobnet", 40)))
)


def digests(cache: Path) -> dict[tuple[str, str, str], object]:
    found = {}
    for store in cache_schema.open_cache(cache).stores():
        name = f"{store.class_space}/{store.prompt_set}" if store.kind == "head" else store.dataset.id
        found[store.kind, store.model.id, name] = store.header["seal"]["arrays"]
    return found


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    return tmp_path


def test_a_job_asks_for_what_it_will_take(study: Path) -> None:
    from extract.datasets import read_datasets_toml, resolve
    from extract.engines.ray_cluster import BASE_MEMORY, DECODER_MEMORY, needs_of
    from extract.models import prepare
    from extract.planning.options import RunOptions
    from extract.planning.plan import make_plan
    from extract.zoo.model_list import read_model_list

    models = [prepare(spec) for spec in read_model_list(study / "models.txt")[:1]]
    weights = study / "weights.safetensors"
    weights.write_bytes(b"x" * 5_000_000)
    models = [replace(model, weights=weights) for model in models]
    datasets = [resolve(spec) for spec in read_datasets_toml(study / "datasets.toml")]
    options = RunOptions(cache=study / "cache", batch_size=10, workers=3)
    (unit,) = make_plan(models, datasets, options).units()
    needs = needs_of(unit, options, gpu=True)
    assert (needs.cpus, needs.gpus) == (4, 1)
    batches = 3 * 3 * 10 * 64 * 64 * 3  # three places for a batch in each of three processes
    assert needs.memory == BASE_MEMORY + 3 * DECODER_MEMORY + batches + 5_000_000


@pytest.mark.parametrize(
    ("nodes", "device", "want"),
    [
        ([{"CPU": 16}, {"CPU": 32, "GPU": 4}], "auto", ("cuda:0", 7)),
        ([{"CPU": 16}, {"CPU": 32, "GPU": 4}], "cpu", ("cpu", 8)),
        ([{"CPU": 1}, {"CPU": 1}], "auto", ("cpu", 0)),
        ([{"CPU": 16}], "cuda", "no node of the Ray cluster has a GPU"),
        ([{"CPU": 16, "GPU": 1}], "cuda:3", "--device takes auto, cpu or cuda with --engine ray"),
    ],
)
def test_the_cluster_says_what_a_device_is(monkeypatch, nodes, device: str, want) -> None:
    from extract.engines import ray_cluster

    monkeypatch.setattr(ray_cluster.cluster, "connected", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(ray_cluster.cluster, "nodes", lambda: nodes)
    if isinstance(want, tuple):
        assert ray_cluster.cluster_device(device, "") == want
    else:
        with pytest.raises(UserError, match=want):
            ray_cluster.cluster_device(device, "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its processes that are killed here on purpose
def test_a_cluster_that_loses_a_worker_and_a_node_gives_the_same_cache(study: Path, run_extract) -> None:
    from ray.cluster_utils import Cluster

    words = ("--model-list", "models.txt", "--batch-size", 4, "--workers", 0)
    # Ray's workers compute with one thread; another number of threads sums in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_extract(*words, "--cache", "whole", cwd=study)
    torch.set_num_threads(threads)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    lost: list[str] = []

    def harm() -> None:
        # First a worker in the middle of a model, then the whole second node.
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list((study / "cluster").rglob(".staged-*")):
            time.sleep(0.02)
        for path in (study / "cluster").rglob(".staged-*"):
            pid = int(path.name.split("-")[-4] if path.name.count("-") > 4 else path.name.split("-")[2])
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                lost.append("worker")
                break
        cluster.remove_node(second, allow_graceful=False)
        lost.append("node")

    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        thread = threading.Thread(target=harm)
        thread.start()
        run_extract(*words, "--cache", "cluster", "--engine", "ray", "--address", cluster.address, cwd=study)
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert "node" in lost
    assert digests(study / "cluster") == digests(study / "whole")
