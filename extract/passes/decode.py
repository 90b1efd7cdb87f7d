"""Image files in, uint8 batches out, in row order: decoding in worker processes that may crash or hang."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from extract.datasets.base import Dataset
from extract.passes.image_rows import DatasetStoppedError, decode_rows

if TYPE_CHECKING:
    from extract.models.base import Geometry

SLOTS_PER_WORKER = 3
"""One batch being filled, one waiting, one in use."""

STUCK_SECONDS = 120.0
"""A batch that is waited for longer is taken for hung; its images are then tried one by one."""

STUCK_IMAGE_SECONDS = 20.0

TRIES_ALONE = 2
"""A process may be killed for what others did, by whoever makes room in memory."""

_LOOK_SECONDS = 1.0
_MOST_OF_A_LOOK = 2 * _LOOK_SECONDS
"""What one look can count for: after a whole group of processes was stopped for an hour, nothing has hung."""


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """A run of rows, decoded.

    Attributes
    ----------
    start, stop
        Rows of the dataset.
    pixels
        (stop - start, H, W, 3) uint8; zeros where an image could not be read. Valid until the next batch is asked for.
    valid
        (stop - start,) bool.
    problems
        Row and reason of each image that could not be read.
    seconds
        What decoding took, in its process; 0 where the pixels were kept from an earlier pass.
    """

    start: int
    stop: int
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    problems: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0


def _worker(pipe: connection.Connection, memory: Any, slot_bytes: int) -> None:
    """Decode what comes down the pipe until it closes."""
    buffer = np.frombuffer(memory, dtype=np.uint8)
    dataset: Dataset | None = None
    geometry: Geometry | None = None
    # Ctrl-C reaches the whole process group; the parent closes the pipe, which ends this loop.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        if message[0] == "dataset":
            dataset, geometry = message[1:]
            continue
        _, slot, start, stop = message
        assert dataset is not None
        assert geometry is not None
        height, width = geometry.output_size
        size = (stop - start) * height * width * 3
        out = buffer[slot * slot_bytes : slot * slot_bytes + size].reshape(stop - start, height, width, 3)
        begun = time.perf_counter()
        try:
            found = decode_rows(dataset, geometry, start, stop, out)
            answer: tuple[Any, ...] = ("done", *found, time.perf_counter() - begun)
        except DatasetStoppedError as error:
            answer = ("stopped", error)
        except Exception as error:  # noqa: BLE001  # whatever a decoder raises is the parent's to sort out
            answer = ("failed", f"{type(error).__name__}: {error}")
        try:
            pipe.send(answer)
        except OSError:
            return


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: connection.Connection
    buffer: NDArray[np.uint8]
    free: list[int] = field(default_factory=lambda: list(range(SLOTS_PER_WORKER)))
    job: tuple[int, int, int] | None = None  # slot, start, stop
    waited: float = 0.0


class Decoder:
    """Decodes datasets batch by batch, in this process or in workers that outlive each dataset.

    Parameters
    ----------
    workers
        Number of processes; 0 decodes in this one.
    slot_bytes
        Bytes of the largest batch that will be asked for.
    stuck_seconds, stuck_image_seconds
        How long a batch, or an image alone, may take before its process is ended and the image counted as unreadable.

    Notes
    -----
    A process that dies (a decoder's segmentation fault, the out-of-memory killer) or hangs costs its batch a second
    try, image by image. An image whose process dies twice of it alone, or hangs, is marked unreadable and everything
    else goes on.
    """

    def __init__(
        self,
        workers: int,
        slot_bytes: int,
        *,
        stuck_seconds: float = STUCK_SECONDS,
        stuck_image_seconds: float = STUCK_IMAGE_SECONDS,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._n_workers = workers
        self._slot_bytes = slot_bytes
        self._stuck_seconds = stuck_seconds
        self._stuck_image_seconds = stuck_image_seconds
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, slot_bytes: int = 0) -> None:
        """Start the workers, for batches of so many bytes; they get ready while this process does something else."""
        if slot_bytes > self._slot_bytes:
            self.close()
            self._slot_bytes = slot_bytes
        while len(self._workers) < self._n_workers:
            self._workers.append(self._start())

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._stop(worker)
        self._workers = []

    def _start(self) -> _Worker:
        # An anonymous mapping that the child inherits: nothing is left behind in shared memory after kill -9.
        memory = self._context.RawArray(ctypes.c_uint8, SLOTS_PER_WORKER * self._slot_bytes)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker, args=(theirs, memory, self._slot_bytes), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, np.frombuffer(memoryview(memory), dtype=np.uint8))

    @staticmethod
    def _stop(worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill() if worker.job is not None else worker.process.join(1.0)
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()

    def batches(self, dataset: Dataset, geometry: Geometry, batch_size: int) -> Iterator[PixelBatch]:
        """Yield the dataset's rows in order, ``batch_size`` at a time.

        Raises
        ------
        DatasetStoppedError
            A file's size is not the one in the manifest, or it cannot be had.
        """
        batch_size = min(batch_size, max(len(dataset), 1))  # memory for more would be taken, and never used
        height, width = geometry.output_size
        if self._n_workers == 0:
            yield from self._here(dataset, geometry, batch_size)
            return
        self.start(batch_size * height * width * 3)
        yield from _Pass(self, dataset, geometry, batch_size).run()

    def _here(self, dataset: Dataset, geometry: Geometry, batch_size: int) -> Iterator[PixelBatch]:
        height, width = geometry.output_size
        out = np.empty((batch_size, height, width, 3), np.uint8)
        for start in range(0, len(dataset), batch_size):
            stop = min(start + batch_size, len(dataset))
            begun = time.perf_counter()
            valid, problems = decode_rows(dataset, geometry, start, stop, out[: stop - start])
            took = time.perf_counter() - begun
            yield PixelBatch(start, stop, out[: stop - start], np.array(valid, bool), tuple(problems), took)


class _Pass:
    """One dataset at one geometry through a decoder's workers."""

    def __init__(self, decoder: Decoder, dataset: Dataset, geometry: Geometry, batch_size: int) -> None:
        self.decoder, self.dataset, self.geometry, self.batch_size = decoder, dataset, geometry, batch_size
        self.height, self.width = geometry.output_size
        self.next_start = 0
        self.again: list[tuple[int, int]] = []  # rows of crashed batches, to be decoded image by image
        self.finished: dict[int, tuple[PixelBatch, _Worker, int]] = {}

    def run(self) -> Iterator[PixelBatch]:
        """Yield the batches in order; whatever ends this early leaves the workers idle or dead, never half-way."""
        for index, worker in enumerate(self.decoder._workers):
            try:
                worker.pipe.send(("dataset", self.dataset, self.geometry))
            except OSError:  # it died while there was nothing to do
                self.decoder._stop(worker)
                self.decoder._workers[index] = self._fresh()
        try:
            wanted = 0
            while wanted < len(self.dataset):
                self._feed()
                while wanted not in self.finished:
                    self._collect()
                    self._feed()
                batch, worker, slot = self.finished.pop(wanted)
                yield batch
                wanted = batch.stop
                worker.free.append(slot)
        finally:
            self._settle()

    def _settle(self) -> None:
        for index, worker in enumerate(self.decoder._workers):
            if worker.job is not None:
                self.decoder._stop(worker)
                self.decoder._workers[index] = self.decoder._start()
            worker.free = list(range(SLOTS_PER_WORKER))

    def _feed(self) -> None:
        for worker in self.decoder._workers:
            if worker.job is None and worker.free and self.next_start < len(self.dataset):
                start = self.next_start
                self.next_start = stop = min(start + self.batch_size, len(self.dataset))
                self._send(worker, worker.free.pop(), start, stop)

    def _send(self, worker: _Worker, slot: int, start: int, stop: int) -> None:
        worker.job, worker.waited = (slot, start, stop), 0.0
        # A worker that has died is found by its sentinel.
        with contextlib.suppress(OSError):
            worker.pipe.send(("rows", slot, start, stop))

    def _collect(self) -> None:
        busy = [worker for worker in self.decoder._workers if worker.job is not None]
        watched = [w.pipe for w in busy] + [w.process.sentinel for w in busy]
        found, waited = _look(watched, _LOOK_SECONDS)
        ready = set(found)
        for worker in busy:
            worker.waited += waited
            if worker.pipe in ready:
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    self._rescue(worker)
                else:
                    self._take(worker, answer)
            elif worker.process.sentinel in ready or worker.waited > self.decoder._stuck_seconds:
                self._rescue(worker)

    def _view(self, worker: _Worker, slot: int, rows: int) -> NDArray[np.uint8]:
        begin = slot * self.decoder._slot_bytes
        size = rows * self.height * self.width * 3
        return worker.buffer[begin : begin + size].reshape(rows, self.height, self.width, 3)

    def _take(self, worker: _Worker, answer: tuple[Any, ...]) -> None:
        assert worker.job is not None
        slot, start, stop = worker.job
        if answer[0] == "stopped":
            worker.job = None
            raise answer[1]
        if answer[0] == "failed":
            self._rescue(worker)
            return
        worker.job = None
        pixels = self._view(worker, slot, stop - start)
        batch = PixelBatch(start, stop, pixels, np.array(answer[1], bool), tuple(answer[2]), answer[3])
        self.finished[start] = (batch, worker, slot)

    def _rescue(self, worker: _Worker) -> None:
        """Decode a failed batch image by image, each in a process that may die of it."""
        assert worker.job is not None
        slot, start, stop = worker.job
        pixels = np.zeros((stop - start, self.height, self.width, 3), np.uint8)
        valid = np.zeros(stop - start, bool)
        problems: list[tuple[int, str]] = []
        index = self.decoder._workers.index(worker)
        self.decoder._stop(worker)
        for row in range(start, stop):
            answer = self._alone(index, row)
            if answer[0] == "stopped":
                raise answer[1]
            if answer[0] == "done":
                pixels[row - start] = self._view(self.decoder._workers[index], 0, 1)[0]
                valid[row - start] = answer[1][0]
                problems.extend(answer[2])
            else:
                problems.append((row, answer[1]))
        # The batch owns its pixels: slot -1 goes back to nobody.
        self.finished[start] = (PixelBatch(start, stop, pixels, valid, tuple(problems)), _NOBODY, slot)
        # Batches that the dead worker had finished still point into its memory, which lives as long as they do.

    def _alone(self, index: int, row: int) -> tuple[Any, ...]:
        """Have one image decoded by the worker at ``index``, in a new process if need be; return its answer."""
        answer: tuple[Any, ...] = ()
        for _ in range(TRIES_ALONE):
            worker = self.decoder._workers[index]
            if worker.job is not None or not worker.process.is_alive():
                self.decoder._stop(worker)
                worker = self.decoder._workers[index] = self._fresh()
            self._send(worker, 0, row, row + 1)
            answer = self._wait_for(worker)
            if answer[0] in ("done", "stopped", "failed"):
                worker.job = None  # it lives
            if answer[0] != "crashed":
                break
        return answer

    def _fresh(self) -> _Worker:
        worker = self.decoder._start()
        worker.pipe.send(("dataset", self.dataset, self.geometry))
        return worker

    def _wait_for(self, worker: _Worker) -> tuple[Any, ...]:
        limit = self.decoder._stuck_image_seconds
        while worker.waited < limit:
            ready, waited = _look([worker.pipe, worker.process.sentinel], min(_LOOK_SECONDS, limit - worker.waited))
            worker.waited += waited
            if worker.pipe in ready:
                with contextlib.suppress(EOFError, OSError):
                    answer: tuple[Any, ...] = worker.pipe.recv()
                    return answer
            if ready:
                return ("crashed", "the decoder crashed on it")
        return ("hung", "the decoder hung on it")


def _look(watched: list[Any], seconds: float) -> tuple[list[Any], float]:
    """Return which of these are ready, and how long that was waited for, as far as this process was running."""
    begun = time.monotonic()
    ready = connection.wait(watched, timeout=seconds)
    return ready, min(time.monotonic() - begun, _MOST_OF_A_LOOK)


class _Nobody:
    free: list[int]

    def __init__(self) -> None:
        self.free = []


_NOBODY: Any = _Nobody()
