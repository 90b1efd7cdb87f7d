"""A local cluster of two nodes loses a worker and a node in the middle; its cache equals an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

import cache_schema

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
