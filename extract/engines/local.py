"""The devices of this machine: one process each, alive over all units; a single device needs no further process."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from cache_schema.errors import CloserlookError
from extract.events import Event, Listener
from extract.options import RunOptions
from extract.plan import Unit


def run_units(
    units: Sequence[Unit], options: RunOptions, listener: Listener, *, devices: Sequence[str], address: str = ""
) -> None:
    """Run units on ``devices``; a device takes the next unit when it has finished one.

    Raises
    ------
    CloserlookError
        Nothing more can be written to the cache.
    """
    del address  # of a cluster
    if len(devices) <= 1 or len(units) <= 1:
        _run_here(units, replace(options, device=devices[0] if devices else options.device), listener)
    else:
        _run_processes(units, options, listener, devices)


def _run_here(units: Sequence[Unit], options: RunOptions, listener: Listener) -> None:
    from extract.worker import Worker

    worker = Worker(options, listener)
    try:
        for unit, following in zip_longest(units, units[1:]):
            worker.run(unit, following)
    finally:
        worker.close()


def _device_process(options: RunOptions, todo: Any, events: Any) -> None:
    # Ctrl-C goes to the whole group; the parent ends these processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from extract.worker import Worker

    worker = Worker(options, events.put)
    try:
        item = todo.get()
        while item is not None:
            unit, may_reserve = item
            # While much is left, the next piece is taken early, so that its models are read during this one.
            following = todo.get() if may_reserve else None
            worker.run(unit, following[0] if following else None)
            item = following if may_reserve else todo.get()
    except CloserlookError as error:
        events.put(error)
    finally:
        worker.close()
        events.put(None)


def _run_processes(units: Sequence[Unit], options: RunOptions, listener: Listener, devices: Sequence[str]) -> None:
    context = multiprocessing.get_context("spawn")
    todo, events = context.Queue(), context.Queue()
    for index, unit in enumerate(units):
        todo.put((unit, index + 2 * len(devices) < len(units)))
    for _ in devices:
        todo.put(None)
    processes = [
        context.Process(target=_device_process, args=(replace(options, device=device), todo, events), name=device)
        for device in devices
    ]
    for process in processes:
        process.start()
    running = len(processes)
    try:
        while running:
            try:
                event = events.get(timeout=1.0)
            except queue.Empty:
                running = _still_running(processes, running, listener)
                continue
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                listener(event)
    finally:
        for process in processes:
            if running:
                process.terminate()
            process.join()


def _still_running(processes: Sequence[multiprocessing.process.BaseProcess], running: int, listener: Listener) -> int:
    """Return how many processes live; tell of those that died without a word (their units are done by the next run)."""
    alive = sum(process.is_alive() for process in processes)
    if alive < running:
        for process in processes:
            if process.exitcode not in (None, 0):
                text = f"the process of {process.name} died (exit code {process.exitcode}); the next run does its work"
                listener(Event("failed", "", "", text=text))
    return alive
