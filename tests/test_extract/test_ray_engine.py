"""A local cluster of two nodes loses a worker and a node in the middle; its cache equals an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_clusters import cluster_of_two

from closerlook_common.errors import UserError

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

MODELS = "\n".join(
    f"timm:{name} allow_random=yes seed={i} num_classes=3 classes=pets input_size={size} crop_pct=1.0 id=m{i}"
    for i, (name, size) in enumerate((("test_vit", 64), ("test_resnet", 48), ("test_resnet", 56), ("test_byobnet", 40)))
)


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    return tmp_path


def test_a_job_asks_for_what_it_will_take(study: Path) -> None:
    from extract.datasets import read_datasets_toml, resolve
    from extract.engines.ray_cluster import BASE_MEMORY, DECODER_MEMORY, needs_of
    from extract.libraries import prepare
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
    pixels = (3 * 10 + 3 * 2 * 8) * 64 * 64 * 3  # three batches, and two pieces of eight images for each process
    assert needs.memory == BASE_MEMORY + 3 * DECODER_MEMORY + pixels + 5_000_000


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


@pytest.fixture
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes of one core each; the second has a GPU, as far as Ray knows."""
    cluster, second = cluster_of_two(num_cpus=1, num_gpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its processes that are killed here on purpose
def test_a_cluster_that_loses_a_worker_and_a_node_gives_the_same_cache(
    study: Path, run_extract, digests, two_nodes, monkeypatch
) -> None:
    """A worker is killed on the node that stays, then the other node is lost, each in the middle of a pass."""
    from extract.engines import ray_cluster

    words = ("--model-list", "models.txt", "--batch-size", 4, "--workers", 0, "--device", "cpu")
    # Ray's workers compute with one thread; another number of threads sums in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_extract(*words, "--cache", "whole", cwd=study)
    torch.set_num_threads(threads)
    running, second = two_nodes
    lost_node = second.node_id
    begun = study / "begun"
    begun.mkdir()
    harmed = study / "harmed"

    def watched(plugins, unit, options, events, gpu):
        """Do the real work; say who is at it where, and hold the first on each node in its pass until it is lost."""
        import os
        import time

        import ray

        from extract.engines import ray_cluster as on_the_node
        from extract.passes import forward, worker

        forward.WRITTEN_ROWS = 4  # these few rows would be written together at the end
        node, name = ray.get_runtime_context().get_node_id(), unit.models[0].card.id
        first = not list(begun.glob(f"{node}.*"))
        (begun / f"{node}.{name}.{os.getpid()}").touch()
        run_pass = worker.run_pass

        def held(runners, batches, device, **rest):
            def slowly():
                for number, batch in enumerate(batches):
                    yield batch
                    if first and number == 5:  # stores are staged, rows are written, and there is no end of it
                        while not list(options.cache.glob(f"{name}/.staged-*")):
                            time.sleep(0.01)
                        (begun / f"{node}.{name}.{os.getpid()}").rename(begun / f"{node}.{name}.{os.getpid()}.held")
                        while not harmed.exists():
                            time.sleep(0.05)

            return run_pass(runners, slowly(), device, **rest)

        worker.run_pass = held
        try:
            return on_the_node._unit_task(plugins, unit, options, events, gpu)
        finally:
            worker.run_pass = run_pass

    monkeypatch.setattr(ray_cluster, "_unit_task", watched)
    lost: list[str] = []

    def lose_both() -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and len(list(begun.glob("*.held"))) < 2:
            time.sleep(0.02)
        (there,) = begun.glob(f"{lost_node}.*.held")
        (here,) = set(begun.glob("*.held")) - {there}
        staged = {path.parent.name for path in (study / "cluster").rglob(".staged-*")}
        assert staged == {here.name.split(".")[1], there.name.split(".")[1]}  # both are in the middle
        os.kill(int(here.name.split(".")[2]), signal.SIGKILL)
        lost.append(here.name.split(".")[1])
        running.remove_node(second, allow_graceful=False)
        with contextlib.suppress(ProcessLookupError):  # the machine takes all along
            os.kill(int(there.name.split(".")[2]), signal.SIGKILL)
        lost.append(there.name.split(".")[1])

    def harm() -> None:
        try:
            lose_both()
        except Exception as error:  # noqa: BLE001  # a thread's is not reported
            lost.append(repr(error))
        harmed.touch()

    thread = threading.Thread(target=harm)
    thread.start()
    done = run_extract(*words, "--cache", "cluster", "--engine", "ray", "--address", running.address, cwd=study)
    thread.join()
    assert len(lost) == 2, lost
    assert "4 done, 0 sealed before, 0 skipped, 0 failed" in done.stderr
    # What the lost worker and the lost node were at was begun again. On a loaded machine Ray itself may give up another
    # worker, whose job is begun again too; never all are.
    tries = Counter(path.name.split(".")[1] for path in begun.iterdir())
    assert set(tries) == {"m0", "m1", "m2", "m3"}
    assert all(tries[name] >= 2 for name in lost)
    assert tries.total() < 8
    assert digests(study / "cluster") == digests(study / "whole")
    again = run_extract(*words, "--cache", "cluster", cwd=study)
    assert "0 done, 4 sealed before" in again.stderr
    # What dead workers of this machine had staged, whichever node they called themselves, is gone.
    assert list((study / "cluster").rglob(".staged-*")) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_jobs_get_the_gpu_and_the_memory_that_they_ask_for(two_nodes) -> None:
    from closerlook_common import cluster

    def where() -> tuple[str, list[int]]:
        import ray

        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()

    _, second = two_nodes
    found = dict(cluster.run_calls(where, [()] * 3, [cluster.Needs(gpus=1)] * 3))
    assert [found[index] for index in range(3)] == [(second.node_id, [0])] * 3
    with pytest.raises(UserError, match=r"a job needs 1 cores, 2 GPU.*no node of the Ray cluster has that"):
        list(cluster.run_calls(where, [()], [cluster.Needs(gpus=2)]))
    with pytest.raises(UserError, match=r"a job needs 1 cores, 1000000.0 GB of memory.*no node"):
        list(cluster.run_calls(where, [()], [cluster.Needs(memory=10**15)]))
