"""The devices of this machine: one process each, alive over all units; a single device needs no further process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from closerlook_common.errors import CloserlookError
from extract.passes.events import Event, Listener
from extract.passes.faults import DeviceLostError, record_lost
from extract.planning.options import RunOptions
from extract.planning.plan import Unit

ENDING_SECONDS = 30.0
"""What a process gets to leave in order."""

RETRIES = 1
"""How often a unit is started again after its process died; its sealed stores are not made again."""


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
        _Processes(units, options, listener, devices).run()


def _run_here(units: Sequence[Unit], options: RunOptions, listener: Listener) -> None:
    from extract.passes.worker import Worker

    worker = Worker(options, listener)
    try:
        for unit, following in zip_longest(units, units[1:]):
            worker.run(unit, following)
    finally:
        worker.close()


def see_only(device: str) -> str:
    """Hide all other GPUs from this process, which must not have used one yet; return what the device is called now.

    Whatever a library does to its default device then happens on the right one.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    return "cuda:0"


def _device_process(options: RunOptions, todo: Connection, events: Connection) -> None:
    """Run the units that come in until None comes or the parent is gone; send events, and None after each unit."""
    # Ctrl-C goes to the whole group; the parent ends these processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler's may come together with the parent's
        raise KeyboardInterrupt

    options = replace(options, device=see_only(options.device))
    # Takes seconds in which no work starts: a signal to stop may simply kill this process.
    from extract.passes.worker import Worker

    inbox: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()

    def read() -> None:
        # In a thread: the parent must never wait for this process to be ready for a unit.
        unit: Unit | None = None
        while True:
            try:
                unit = todo.recv()
            except (EOFError, OSError):
                # The parent was killed: free the device.
                os.kill(os.getpid(), signal.SIGTERM)
                return
            inbox.put(unit)
            if unit is None:
                return

    threading.Thread(target=read, name="units", daemon=True).start()
    lock = threading.Lock()

    def notify(event: Event | CloserlookError | None) -> None:
        with lock, contextlib.suppress(OSError):
            events.send(event)

    worker = Worker(options, notify)
    try:
        signal.signal(signal.SIGTERM, stop)
        waiting: deque[Unit | None] = deque()
        while True:
            if not waiting:
                waiting.append(inbox.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(inbox.get_nowait())
            unit = waiting.popleft()
            if unit is None:
                return
            worker.run(unit, waiting[0] if waiting else None)
            notify(None)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGTERM) from None
    except DeviceLostError:
        raise SystemExit(1) from None  # a new process may have better luck
    except CloserlookError as error:
        notify(error)
    finally:
        worker.close()


@dataclass(eq=False)
class _Device:
    """A process and the units that it was given and has not finished, the present one first."""

    name: str
    process: SpawnProcess
    todo: Connection
    events: Connection
    given: deque[Unit] = field(default_factory=deque)


class _Processes:
    """Gives units out, and again where the process that was at one died.

    Every process has pipes of its own: one that is killed in the middle of a word leaves no lock held that others need.
    """

    def __init__(self, units: Sequence[Unit], options: RunOptions, listener: Listener, devices: Sequence[str]) -> None:
        self.options, self.listener = options, listener
        self.left = deque(units)
        self.deaths: dict[int, int] = {}
        self.done: set[tuple[str, str]] = set()
        self.context = multiprocessing.get_context("spawn")
        self.devices = [self._start(name) for name in devices]

    def _start(self, name: str) -> _Device:
        units_out, todo = self.context.Pipe(duplex=False)
        events_out, events_in = self.context.Pipe(duplex=False)
        options = replace(self.options, device=name)
        process = self.context.Process(target=_device_process, args=(options, units_out, events_in), name=name)
        process.start()
        units_out.close()
        events_in.close()
        return _Device(name, process, todo, events_out)

    def run(self) -> None:
        """Run until every unit is finished or given up."""
        try:
            self._give()
            while any(device.given for device in self.devices):
                for ready in wait([device.events for device in self.devices], timeout=1.0):
                    self._on_event(next(device for device in self.devices if device.events is ready))
            for device in self.devices:
                with contextlib.suppress(OSError):
                    device.todo.send(None)
        except BaseException:
            for device in self.devices:
                device.process.terminate()
            for device in self.devices:
                device.process.join(ENDING_SECONDS)
                device.process.kill()  # no more than nothing, mostly
            raise
        finally:
            for device in self.devices:
                device.process.join()

    def _on_event(self, device: _Device) -> None:
        try:
            event = device.events.recv()
        except (EOFError, OSError):
            self._replace_dead_worker(device)
            return
        if event is None:
            device.given.popleft()
            self._give()
        elif isinstance(event, BaseException):
            raise event
        elif event.kind != "done":
            self.listener(event)
        elif (where := (event.model, event.dataset)) not in self.done:  # of a unit that was begun again
            self.done.add(where)
            self.listener(event)

    def _give(self) -> None:
        """Give every idle device a unit; while much is left, also the next, so that its models are read meanwhile."""
        for device in self.devices:
            if not device.given and self.left:
                self._send(device)
        for device in self.devices:
            if len(device.given) == 1 and len(self.left) > len(self.devices):
                self._send(device)

    def _send(self, device: _Device) -> None:
        unit = self.left.popleft()
        device.given.append(unit)
        with contextlib.suppress(OSError):  # of a process that has just died, which is found by its other pipe
            device.todo.send(unit)

    def _replace_dead_worker(self, device: _Device) -> None:
        """Replace a process that died without a word, and give its units out again."""
        device.process.join()
        code = device.process.exitcode
        if device.given:
            present = device.given.popleft()
            self.left.extendleft(reversed(device.given))
            deaths = self.deaths[id(present)] = self.deaths.get(id(present), 0) + 1
            if deaths <= RETRIES:
                self.left.appendleft(present)
                self.listener(Event("note", text=f"the process of {device.name} died (exit code {code}): once more"))
            else:
                reason = f"the process of {device.name} died {deaths} times at it (exit code {code})"
                for job in present.jobs:
                    if (job.model.card.id, job.dataset.card.id) not in self.done:
                        record_lost(self.options.cache, job, reason, self.listener)
        self.devices[self.devices.index(device)] = self._start(device.name)
        self._give()
