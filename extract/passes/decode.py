"""Image files in, uint8 batches out, in row order: decoding in worker processes that may crash or hang."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import time
from collections import deque
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

_FEWEST, _MOST = 8, 64
"""Images that a process decodes at a time. All processes fill the first batch together, or the device would wait for
one of them to decode it alone; fewer images would be more messages, more would end at different times.
"""

_PIECES_AHEAD = 2
"""Pieces that a process has to do while the models work and nobody gives it new ones."""

STUCK_SECONDS = 120.0
"""A piece that is waited for longer is taken for hung; its images are then tried one by one."""

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


def _worker(pipe: connection.Connection, memory: Any) -> None:
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
        _, begin, start, stop = message
        assert dataset is not None
        assert geometry is not None
        height, width = geometry.output_size
        size = (stop - start) * height * width * 3
        out = buffer[begin : begin + size].reshape(stop - start, height, width, 3)
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


def room_of(batch_size: int, workers: int) -> int:
    """Return how many images have room in memory: a batch in use, two that are filled, and what is done ahead."""
    return 3 * batch_size + _PIECES_AHEAD * workers * _piece_of(batch_size, workers)


def _piece_of(batch_size: int, workers: int) -> int:
    """Return how many images of a batch a process decodes at a time."""
    return min(max(-(-batch_size // max(workers, 1)), _FEWEST), _MOST, batch_size)


@dataclass(eq=False)
class _Filling:
    """A batch that several processes fill, piece by piece."""

    start: int
    stop: int
    slot: int
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    missing: int
    problems: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, start: int, stop: int, valid: list[bool], problems: list[tuple[int, str]], seconds: float) -> None:
        self.valid[start - self.start : stop - self.start] = valid
        self.problems += problems
        self.seconds += seconds
        self.missing -= stop - start


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: connection.Connection
    jobs: deque[tuple[_Filling, int, int]] = field(default_factory=deque)  # what of which batch: start, stop
    waited: float = 0.0


class Decoder:
    """Decodes datasets batch by batch, in this process or in workers that outlive each dataset.

    Parameters
    ----------
    workers
        Number of processes; 0 decodes in this one.
    stuck_seconds, stuck_image_seconds
        How long a piece of a batch, or an image alone, may take before its process is ended and the image counted as
        unreadable.

    Notes
    -----
    A process that dies (a decoder's segmentation fault, the out-of-memory killer) or hangs costs its piece of a batch
    a second try, image by image. An image whose process dies twice of it alone, or hangs, is marked unreadable and
    everything else goes on.
    """

    def __init__(
        self,
        workers: int,
        *,
        stuck_seconds: float = STUCK_SECONDS,
        stuck_image_seconds: float = STUCK_IMAGE_SECONDS,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._n_workers = workers
        self._memory: Any = None
        self._buffer: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._stuck_seconds = stuck_seconds
        self._stuck_image_seconds = stuck_image_seconds
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, batch_size: int, image_bytes: int) -> None:
        """Start the workers, with room for such batches; they get ready while this process does something else."""
        n_bytes = room_of(batch_size, self._n_workers) * image_bytes
        if n_bytes > self._buffer.size and self._n_workers:
            self.close()
            # A mapping without a name that the children inherit: nothing is left behind in shared memory after kill -9.
            self._memory = self._context.RawArray(ctypes.c_uint8, n_bytes)
            self._buffer = np.frombuffer(memoryview(self._memory), dtype=np.uint8)
        while len(self._workers) < self._n_workers:
            self._workers.append(self._start())

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._stop(worker)
        self._workers = []
        self._memory, self._buffer = None, np.empty(0, np.uint8)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker, args=(theirs, self._memory), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    @staticmethod
    def _stop(worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill() if worker.jobs else worker.process.join(1.0)
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
        self.start(batch_size, height * width * 3)
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
        self.shape = (*geometry.output_size, 3)
        self.image_bytes = int(np.prod(self.shape))
        self.piece = _piece_of(batch_size, decoder._n_workers)
        self.free = list(range(room_of(batch_size, decoder._n_workers) // batch_size))
        self.next_row = 0
        self.fillings: dict[int, _Filling] = {}  # by first row

    def run(self) -> Iterator[PixelBatch]:
        """Yield the batches in order; whatever ends this early leaves the workers idle or dead, never half-way."""
        for index, worker in enumerate(self.decoder._workers):
            try:
                worker.pipe.send(("dataset", self.dataset, self.geometry))
            except OSError:  # it died while there was nothing to do
                self._replace(index)
        try:
            wanted = 0
            while wanted < len(self.dataset):
                self._feed()
                while wanted not in self.fillings or self.fillings[wanted].missing:
                    self._collect()
                    self._feed()
                batch = self.fillings.pop(wanted)
                problems = tuple(sorted(batch.problems))
                yield PixelBatch(batch.start, batch.stop, batch.pixels, batch.valid, problems, batch.seconds)
                wanted = batch.stop
                self.free.append(batch.slot)
        finally:
            for index, worker in enumerate(self.decoder._workers):
                if worker.jobs:
                    self.decoder._stop(worker)
                    self.decoder._workers[index] = self.decoder._start()

    def _feed(self) -> None:
        """Give each worker its next piece, then each one more."""
        for ahead in range(_PIECES_AHEAD):
            for worker in self.decoder._workers:
                if len(worker.jobs) <= ahead and (piece := self._next_piece()) is not None:
                    self._send(worker, *piece)

    def _next_piece(self) -> tuple[_Filling, int, int] | None:
        start = self.next_row
        first = start - start % self.batch_size
        if start == len(self.dataset) or (start == first and not self.free):
            return None
        if start == first:
            stop, slot = min(start + self.batch_size, len(self.dataset)), self.free.pop()
            begin, rows = slot * self.batch_size * self.image_bytes, stop - start
            pixels = self.decoder._buffer[begin : begin + rows * self.image_bytes].reshape(rows, *self.shape)
            self.fillings[first] = _Filling(start, stop, slot, pixels, np.zeros(rows, bool), rows)
        batch = self.fillings[first]
        self.next_row = min(start + self.piece, batch.stop)
        return batch, start, self.next_row

    def _send(self, worker: _Worker, batch: _Filling, start: int, stop: int) -> None:
        if not worker.jobs:
            worker.waited = 0.0
        worker.jobs.append((batch, start, stop))
        begin = (batch.slot * self.batch_size + start - batch.start) * self.image_bytes
        # A worker that has died is found by its sentinel.
        with contextlib.suppress(OSError):
            worker.pipe.send(("rows", begin, start, stop))

    def _collect(self) -> None:
        busy = [worker for worker in self.decoder._workers if worker.jobs]
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

    def _take(self, worker: _Worker, answer: tuple[Any, ...]) -> None:
        if answer[0] == "stopped":
            raise answer[1]
        if answer[0] == "failed":
            self._rescue(worker)
            return
        batch, start, stop = worker.jobs.popleft()
        worker.waited = 0.0
        batch.take(start, stop, *answer[1:])

    def _rescue(self, worker: _Worker) -> None:
        """Decode a failed piece image by image, each in a process that may die of it; a new one does the others."""
        (batch, start, stop), *others = worker.jobs
        index = self.decoder._workers.index(worker)
        self._replace(index)
        for row in range(start, stop):
            answer = self._alone(index, batch, row)
            if answer[0] == "stopped":
                raise answer[1]
            if answer[0] == "done":
                batch.take(row, row + 1, *answer[1:])
            else:
                batch.pixels[row - batch.start] = 0  # it may be half there
                batch.take(row, row + 1, [False], [(row, answer[1])], 0.0)
        for other in others:
            self._send(self.decoder._workers[index], *other)

    def _alone(self, index: int, batch: _Filling, row: int) -> tuple[Any, ...]:
        """Have one image decoded by the worker at ``index``, which lives afterwards; return its answer."""
        answer: tuple[Any, ...] = ()
        for _ in range(TRIES_ALONE):
            worker = self.decoder._workers[index]
            self._send(worker, batch, row, row + 1)
            answer = self._wait_for(worker)
            if answer[0] in ("done", "stopped", "failed"):
                worker.jobs.clear()
                break
            self._replace(index)
            if answer[0] == "hung":
                break
        return answer

    def _replace(self, index: int) -> None:
        """Put a new process in the place of one that has died or is of no use."""
        self.decoder._stop(self.decoder._workers[index])
        worker = self.decoder._workers[index] = self.decoder._start()
        worker.pipe.send(("dataset", self.dataset, self.geometry))

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
