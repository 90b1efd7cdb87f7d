"""One pass: decoded batches of one dataset through several models, each into its own sink."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.passes.batches import PixelBatch, View
from extract.passes.clock import MEASURED_BATCHES, MEASURED_SECONDS, Clock
from extract.passes.runners import Runner, forward_halving
from extract.passes.transfer import Timed, Transfer, to_host
from extract.passes.views import forward_views

QUEUED_BYTES = 128 << 20
"""Outputs that may wait for the writer, over all models of a pass: enough to outlast a slow moment of the disk."""


_LOOK_SECONDS = 0.5

WRITTEN_ROWS = 256
"""Rows of a model that are written together."""


class NotFiniteError(RuntimeError):
    """A model gave NaN or an infinity for an image that was read well."""


@dataclass(eq=False)
class _Output:
    runner: Runner
    features: torch.Tensor | None
    logits: torch.Tensor | None
    parts: dict[str, torch.Tensor]
    valid: NDArray[np.bool_]
    start: int
    timed: Timed | None

    @property
    def size(self) -> int:
        tensors = (self.features, self.logits, *self.parts.values())
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@dataclass(eq=False)
class _Writer:
    """Appends outputs to their sinks in a thread of its own, so that compression and disk never hold up the device.

    Small batches of one model are put together first: a few hundred rows cost little more than a few dozen.
    """

    clock: Clock
    device: torch.device
    inbox: queue.SimpleQueue[_Output | None] = field(default_factory=queue.SimpleQueue)
    room: threading.Condition = field(default_factory=threading.Condition)
    waiting: int = 0
    held: dict[int, list[_Output]] = field(default_factory=dict)
    held_bytes: int = 0
    stopped: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            self.ended.set()

    def _loop(self) -> None:
        if self.device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # of a lost device, which the first batch shows
                torch.cuda.set_device(self.device)  # else this thread would take memory of the first one
        while (output := self.inbox.get()) is not None:
            self._await(output)
            mine = self.held.setdefault(id(output.runner), [])
            mine.append(output)
            self.held_bytes += output.size
            if sum(len(held.valid) for held in mine) >= WRITTEN_ROWS:
                self._write(mine)
            elif self.held_bytes >= QUEUED_BYTES // 2:  # never so much that nothing more can come in
                self._write_all()
            del output, mine
        self._write_all()

    def _await(self, output: _Output) -> None:
        """Wait until outputs are in the machine's memory."""
        if output.timed is None:
            return
        try:
            self.clock.forward += output.timed.wait()
            self.clock.forwarded += len(output.valid)
        except Exception as error:  # noqa: BLE001  # of a kernel that failed long after it was handed over
            output.runner.fail(error)

    def _write_all(self) -> None:
        for outputs in self.held.values():
            if outputs:
                self._write(outputs)

    def _write(self, outputs: list[_Output]) -> None:
        """Append what is held of a model; the list is empty afterwards."""
        runner, size = outputs[0].runner, sum(output.size for output in outputs)
        begun, on_core = time.perf_counter(), time.thread_time()
        try:
            if runner.error is None and not self.stopped:
                _append(outputs)
        except Exception as error:  # noqa: BLE001  # one model's failure must not stop the others
            runner.fail(error)
        outputs.clear()
        self.clock.write += time.perf_counter() - begun
        self.clock.write_cpu += time.thread_time() - on_core
        self.held_bytes -= size
        with self.room:
            self.waiting -= size
            self.room.notify()

    def put(self, output: _Output) -> None:
        begun = time.perf_counter()
        with self.room:
            self.room.wait_for(lambda: self.waiting < QUEUED_BYTES)
            self.waiting += output.size
        self.inbox.put(output)
        self.clock.write_wait += time.perf_counter() - begun

    def close(self) -> None:
        begun = time.perf_counter()
        try:
            self.inbox.put(None)
            # Not for the thread: waiting for one again fails where the first time was interrupted. And with looks in
            # between: a Ctrl-C in the instant before a wait arrives at its end only.
            while not self.ended.wait(_LOOK_SECONDS):
                pass
        except BaseException:
            # Who interrupts removes the stores next, and nothing may be begun in them behind that.
            self.stopped = True
            self.inbox.put(None)
            self.ended.wait()
            raise
        self.clock.write_wait += time.perf_counter() - begun


def _append(outputs: Sequence[_Output]) -> None:
    """Check and write rows of one model that follow one another."""
    valid = _joined([output.valid for output in outputs])
    features = _joined_rows([output.features for output in outputs])
    logits = _joined_rows([output.logits for output in outputs])
    parts = {name: _joined([output.parts[name].numpy() for output in outputs]) for name in outputs[0].parts}
    for what, array in (("features", features), ("logits", logits), *parts.items()):
        if array is None:
            continue
        # A NaN is its own largest number: one look at the extremes shows whether every row needs one.
        if not (np.isfinite(array.max()) and np.isfinite(array.min())):
            asked = outputs[0].runner.asked if what == "logits" else None
            wrong = ~np.isfinite(array) if asked is None else asked.wrong(array, outputs[0].start)
            bad = wrong.reshape(len(array), -1).any(axis=1) & valid
            if bad.any():
                row = outputs[0].start + int(np.flatnonzero(bad)[0])
                raise NotFiniteError(
                    f"the model gives NaN or infinite {what} from row {row} on ({bad.sum()} of {len(bad)} rows there)"
                )
        if not valid.all():
            array[~valid] = np.nan
    outputs[0].runner.sink.append(features, logits, valid, parts)


def _joined_rows(tensors: list[torch.Tensor | None]) -> NDArray[np.float32] | None:
    rows = [tensor.numpy() for tensor in tensors if tensor is not None]
    return _joined(rows) if rows else None


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def run_pass(
    runners: Sequence[Runner],
    batches: Iterable[PixelBatch],
    device: torch.device,
    *,
    on_batch: Callable[[int], None] = lambda rows: None,
    on_rates: Callable[[Clock], None] = lambda clock: None,
    processes: int = 0,
) -> tuple[Clock, dict[int, list[tuple[int, str]]]]:
    """Feed every batch to every model whose part has not failed, at one geometry after the other.

    Parameters
    ----------
    runners
        The models; each one's ``error`` is set where it fails, and the pass ends early only when all have.
    batches
        Rows in order.
    device
        Where the models are.
    on_batch
        Called with the number of rows after each batch.
    on_rates
        Called once, when enough has been measured to say what bounds the pass.
    processes
        That decode; 0 where the batches are decoded in this one.

    Returns
    -------
    clock : Clock
    problems : view -> list of (row, reason)
        Images that could not be read.
    """
    clock = Clock(processes=processes)
    problems: dict[int, list[tuple[int, str]]] = {}
    transfer = Transfer(device)
    writer = _Writer(clock, device)
    begun = mark = time.perf_counter()
    given = False
    try:
        for batch in batches:
            clock.decode_wait += time.perf_counter() - mark
            clock.decode += batch.seconds
            transfer.reserve(max(view.pixels.nbytes for view in batch.views))
            for index, view in enumerate(batch.views):
                problems.setdefault(index, []).extend(view.problems)
                mine = [runner for runner in runners if runner.view == index and runner.error is None]
                if mine:
                    pixels = transfer(view.pixels)
                    clock.transfer = transfer.seconds
                    for runner in mine:
                        _run_view(runner, pixels, view, batch.start, writer, clock)
                    transfer.done()
            clock.images += batch.stop - batch.start
            on_batch(batch.stop - batch.start)
            if all(runner.error is not None for runner in runners):
                break
            mark = time.perf_counter()
            clock.batches, clock.wall = clock.batches + 1, mark - begun
            if not given and clock.batches >= MEASURED_BATCHES and clock.wall >= MEASURED_SECONDS:
                given = True
                on_rates(clock)
    finally:
        writer.close()
        clock.wall = time.perf_counter() - begun
    return clock, problems


def _run_view(runner: Runner, pixels: torch.Tensor, view: View, start: int, writer: _Writer, clock: Clock) -> None:
    begun = time.perf_counter()
    try:
        timed = Timed(pixels.device) if pixels.is_cuda else None
        with torch.inference_mode():
            forward = forward_views if runner.views else forward_halving
            found = forward(runner, pixels, start)
            features, logits = (None if one is None else to_host(one) for one in (found.features, found.logits))
            parts = {name: to_host(values) for name, values in found.parts.items()}
        if timed is not None:
            timed.end()
    except Exception as error:  # noqa: BLE001  # one model's failure must not stop the others
        runner.fail(error)
        return
    if timed is None:
        clock.forward += time.perf_counter() - begun
        clock.forwarded += len(view.valid)
    writer.put(_Output(runner, features, logits, parts, view.valid.copy(), start, timed))
