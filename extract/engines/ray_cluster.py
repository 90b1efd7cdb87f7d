"""A Ray cluster: units as jobs with a GPU and memory each; lost workers and nodes cost a retry, never data."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from closerlook_common import cluster
from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.plugins import PluginFile, adopt, loaded_files
from extract.models.views import Views
from extract.passes.events import Event, Listener
from extract.passes.faults import record_lost
from extract.passes.pixel_room import MOST_BYTES, image_bytes, room_of, rows_of_views
from extract.planning.jobs import is_sealed
from extract.planning.options import RunOptions
from extract.planning.plan import Unit
from extract.preprocess import Geometry

_PASSING = ("loading", "pass", "rows", "rates")
"""Events that only show how a job goes on; the others are also brought home by the job itself."""

BASE_MEMORY = 2 << 30
DECODER_MEMORY = 300 << 20
UNKNOWN_WEIGHTS = 2 << 30
"""Bytes of a process that runs models, of one that decodes, and of weights that are not on this machine yet."""


def run_units(
    units: Sequence[Unit], options: RunOptions, listener: Listener, *, devices: Sequence[str], address: str = ""
) -> None:
    """Run units on a cluster, as many at a time as it has devices.

    Parameters
    ----------
    address
        Of the cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``); empty takes the one that runs on this machine,
        else starts one.

    Raises
    ------
    UserError
        There is no such cluster, or none of its nodes has what a unit needs.

    Notes
    -----
    The cache must be a file system that every node sees. No lock is held on it: a store is staged and published by one
    process, and of two that race for the same store one loses its time.
    """
    with cluster.connected(address):
        _run(units, options, listener, gpu=any(device.startswith("cuda") for device in devices))


def cluster_device(name: str, address: str) -> tuple[str, int]:
    """Return what ``--device`` means on a cluster, and how many processes decode for one device.

    This machine, which may be a login node, is not asked.

    Raises
    ------
    UserError
        The cluster has no such device.
    """
    with cluster.connected(address):
        there = cluster.nodes()
    with_gpu = [node for node in there if node.get("GPU", 0) >= 1]
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device takes auto, cpu or cuda with --engine ray, which assigns the devices; not {name!r}")
    if name == "cuda" and not with_gpu:
        raise UserError("--device cuda: no node of the Ray cluster has a GPU")
    if with_gpu and name != "cpu":
        cores = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)
        return "cuda:0", max(cores - 1, 0)
    # On the CPU the models need cores themselves; every node can take a job.
    return "cpu", min((int(node.get("CPU", 0)) for node in there), default=0) // 2


def needs_of(unit: Unit, options: RunOptions, *, gpu: bool) -> cluster.Needs:
    """Return what a unit takes of a node: a core for the models and one for each decoding process, a GPU, memory.

    Memory is an upper estimate from the sizes of weight files and batches: on a GPU the host holds one model and the
    next, on the CPU all that are resident and the next.
    """
    rows = min(options.batch_size, max((len(job.dataset) for job in unit.jobs), default=1))
    weights = sorted(
        (model.weights.stat().st_size if model.weights is not None else UNKNOWN_WEIGHTS for model in unit.models),
        reverse=True,
    )
    resident = 1 if gpu else options.resident or len(weights)
    sizes = [_room(geometry, rows, options) * image_bytes([geometry]) for geometry in unit.geometries]
    pixels = max(min(sum(sizes), MOST_BYTES), max(sizes, default=0))
    memory = BASE_MEMORY + options.workers * DECODER_MEMORY + pixels + sum(weights[: resident + 1])
    return cluster.Needs(cpus=1 + options.workers, gpus=int(gpu), memory=memory)


def _room(geometry: Geometry, rows: int, options: RunOptions) -> int:
    """Return how many images of a geometry have room in memory."""
    if isinstance(geometry, Views):
        rows = rows_of_views(rows, geometry, options.workers, MOST_BYTES)
    return room_of(rows, options.workers)


def _run(units: Sequence[Unit], options: RunOptions, listener: Listener, *, gpu: bool) -> None:
    options = replace(options, cache=options.cache.absolute())
    events = _events()
    plugins = loaded_files()  # first: what comes after it may be of classes that they define
    calls = [(plugins, unit, options, events, gpu) for unit in units]
    needs = [needs_of(unit, options, gpu=gpu) for unit in units]
    results = cluster.run_calls(_unit_task, calls, needs, idle=lambda: _drain(events, listener))
    with contextlib.closing(results):
        for index, result in results:
            if isinstance(result, CloserlookError):
                raise result
            if isinstance(result, BaseException):
                reason = (str(result).strip().splitlines() or [type(result).__name__])[0]
                for job in units[index].jobs:
                    if is_sealed(job, options):
                        listener(Event("done", job.model.card.id, job.dataset.card.id))
                    else:
                        record_lost(options.cache, job, reason, listener)
            else:
                _drain(events, listener)
                for event in result:
                    listener(event)
    with contextlib.suppress(Exception):
        events.shutdown(force=True)


def _events() -> Any:
    """Return a queue for progress, on this node if that can be: another may be lost."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=True)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _drain(events: Any, listener: Listener) -> None:
    # Progress is a courtesy: a lost queue ends it, not the run.
    with contextlib.suppress(queue.Empty, Exception):
        while True:
            listener(events.get_nowait())


def _unit_task(plugins: Sequence[PluginFile], unit: Unit, options: RunOptions, events: Any, gpu: bool) -> list[Event]:
    """Run one unit in a worker process of the cluster; return what became of it."""
    adopt(plugins)
    from cache_schema.writing.staging import clean_stale
    from extract.passes.claims import clean_claims
    from extract.passes.faults import check_writable
    from extract.passes.worker import Worker

    kept: list[Event] = []

    def notify(event: Event) -> None:
        if event.kind not in _PASSING:
            kept.append(event)
            return
        with contextlib.suppress(Exception):
            events.put(event)

    check_writable(options.cache)
    clean_stale(options.cache)
    clean_claims(options.cache)
    worker = Worker(replace(options, device="cuda:0" if gpu else "cpu"), notify)
    try:
        worker.run(unit)
    except CloserlookError as error:
        raise type(error)(f"{error} (on {socket.gethostname()})") from None
    finally:
        worker.close()
    return kept
