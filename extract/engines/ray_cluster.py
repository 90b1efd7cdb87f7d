"""A Ray cluster: units as tasks with a GPU each; lost workers and nodes cost a retry, never data."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.queue import Queue

from cache_schema.errors import CloserlookError, UserError
from extract.events import Event, Listener
from extract.options import RunOptions
from extract.plan import Unit

RETRIES = 3
"""How often a unit whose worker or node was lost is started again; sealed stores of it are not made again."""


def run_units(
    units: Sequence[Unit], options: RunOptions, listener: Listener, *, devices: Sequence[str], address: str = ""
) -> None:
    """Run units on a cluster, as many at a time as it has devices.

    Parameters
    ----------
    address
        Of the cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``); empty starts one on this machine.

    Notes
    -----
    The cache must be a file system that every node sees. No lock is held on it: a store is staged and published by one
    process, and of two that race for the same store one loses its time.
    """
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(address=address or None, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    try:
        _run(units, options, listener, gpu=any(device.startswith("cuda") for device in devices))
    finally:
        if started_here:
            ray.shutdown()


def _run(units: Sequence[Unit], options: RunOptions, listener: Listener, *, gpu: bool) -> None:
    events = Queue(actor_options={"num_cpus": 0})
    options = replace(options, cache=options.cache.absolute())
    task = ray.remote(_unit_task).options(
        num_gpus=1 if gpu else 0, num_cpus=1 + options.workers, max_retries=RETRIES, retry_exceptions=False
    )
    pending = {task.remote(unit, options, events, gpu): unit for unit in units}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
        _drain(events, listener)
        for reference in ready:
            unit = pending.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, CloserlookError):
                    raise error.cause from None
                _tell_lost(unit, listener, str(error.cause).splitlines()[0])
            except ray.exceptions.RayError as error:
                _tell_lost(unit, listener, f"its worker was lost {RETRIES + 1} times ({type(error).__name__})")
    _drain(events, listener)
    events.shutdown(force=True)


def _drain(events: Any, listener: Listener) -> None:
    with contextlib.suppress(queue.Empty, ray.exceptions.RayError):
        while True:
            listener(events.get_nowait())


def _tell_lost(unit: Unit, listener: Listener, reason: str) -> None:
    for job in unit.jobs:
        listener(Event("failed", job.model.card.id, job.dataset.card.id, text=reason))


def _unit_task(unit: Unit, options: RunOptions, events: Any, gpu: bool) -> None:
    """Run one unit in a worker process of the cluster."""
    from cache_schema.staging import clean_stale
    from extract.worker import Worker

    def tell(event: Event) -> None:
        # Progress is a courtesy: the work goes on when the node that shows it is gone.
        with contextlib.suppress(Exception):
            events.put(event)

    clean_stale(options.cache)
    worker = Worker(replace(options, device="cuda:0" if gpu else "cpu"), tell)
    try:
        worker.run(unit)
    finally:
        worker.close()
