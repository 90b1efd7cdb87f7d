"""One dataset through the processes that decode: pieces of batches given out, and put together in row order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.base import Dataset
from extract.passes.batches import PixelBatch, View
from extract.passes.image_rows import Rows
from extract.passes.pixel_room import PIECES_AHEAD, image_bytes, piece_of, room_of
from extract.passes.pool import Pool, Process

if TYPE_CHECKING:
    from extract.models.base import Geometry

TRIES_ALONE = 2
"""A process may be killed to free memory that others took."""

_LOOK_SECONDS = 1.0
_MOST_OF_A_LOOK = 2 * _LOOK_SECONDS
"""What one look can count for: after a whole group of processes was stopped for an hour, nothing has hung."""


@dataclass(frozen=True)
class Limits:
    """How long a piece, and an image alone, may take."""

    stuck_seconds: float
    stuck_image_seconds: float

    def times(self, factor: float) -> Limits:
        """Return limits that are so many times as long."""
        return Limits(self.stuck_seconds * factor, self.stuck_image_seconds * factor)


@dataclass(eq=False)
class _FilledView:
    """A batch at one geometry, while several processes fill it; ``begin`` is where it lies in the shared memory."""

    begin: int
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(eq=False)
class _Filling:
    """A batch that several processes fill, piece by piece."""

    start: int
    stop: int
    slot: int
    views: list[_FilledView]
    missing: int
    seconds: float = 0.0

    def places(self, start: int, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Return where the pixels of a row lie at some geometries."""
        views = [(number, self.views[number]) for number in numbers]
        return [(number, view.begin + (start - self.start) * view.pixels[0].nbytes) for number, view in views]

    def take(self, start: int, numbers: Sequence[int], found: Sequence[Rows]) -> None:
        """Take note of what became of rows at some geometries."""
        for number, rows in zip(numbers, found, strict=True):
            view, first = self.views[number], start - self.start
            view.valid[first : first + len(rows.valid)] = rows.valid
            view.problems += rows.problems

    def refuse(self, row: int, number: int, reason: str) -> None:
        """Mark a row unreadable at one geometry."""
        view = self.views[number]
        view.pixels[row - self.start] = 0  # it may be half there
        view.problems.append((row, reason))

    def batch(self) -> PixelBatch:
        """Return the batch; nothing of it is missing."""
        views = tuple(View(view.pixels, view.valid, tuple(sorted(view.problems))) for view in self.views)
        return PixelBatch(self.start, self.stop, views, self.seconds)


class Pieces:
    """One dataset at some geometries through the processes of a pool.

    Parameters
    ----------
    pool
        Running, with memory for `room_of` rows.
    limits
        After which a process is taken for hung.
    dataset, geometries, batch_size
        What is decoded.
    """

    def __init__(
        self, pool: Pool, limits: Limits, dataset: Dataset, geometries: Sequence[Geometry], batch_size: int
    ) -> None:
        self.pool, self.limits = pool, limits
        self.dataset, self.geometries, self.batch_size = dataset, tuple(geometries), batch_size
        self.all = range(len(geometries))
        self.slot_bytes = batch_size * image_bytes(geometries)
        self.piece = piece_of(batch_size, pool.size)
        self.free = list(range(room_of(batch_size, pool.size) // batch_size))
        self.next_row = 0
        self.fillings: dict[int, _Filling] = {}  # by first row

    def run(self) -> Iterator[PixelBatch]:
        """Yield the batches in order; whatever ends this early leaves the workers idle or dead, never half-way."""
        for index, process in enumerate(self.pool.processes):
            try:
                process.pipe.send(("dataset", self.dataset, self.geometries))
            except OSError:  # it died while there was nothing to do
                self._replace(index)
        try:
            wanted = 0
            while wanted < len(self.dataset):
                self._feed()
                while wanted not in self.fillings or self.fillings[wanted].missing:
                    self._collect()
                    self._feed()
                filled = self.fillings.pop(wanted)
                yield filled.batch()
                wanted = filled.stop
                self.free.append(filled.slot)
        finally:
            for index, process in enumerate(self.pool.processes):
                if process.jobs:
                    self.pool.replace(index)

    def _feed(self) -> None:
        """Give each worker its next piece, then each one more."""
        for ahead in range(PIECES_AHEAD):
            for process in self.pool.processes:
                if len(process.jobs) <= ahead and (piece := self._next_piece()) is not None:
                    self._send(process, *piece, self.all)

    def _next_piece(self) -> tuple[_Filling, int, int] | None:
        start = self.next_row
        first = start - start % self.batch_size
        if start == len(self.dataset) or (start == first and not self.free):
            return None
        if start == first:
            self.fillings[first] = self._new_filling(start, min(start + self.batch_size, len(self.dataset)))
        batch = self.fillings[first]
        self.next_row = min(start + self.piece, batch.stop)
        return batch, start, self.next_row

    def _new_filling(self, start: int, stop: int) -> _Filling:
        slot, rows, views = self.free.pop(), stop - start, []
        begin = slot * self.slot_bytes
        for geometry in self.geometries:
            shape = (rows, *geometry.output_size, 3)
            pixels = self.pool.buffer[begin : begin + int(np.prod(shape))].reshape(shape)
            views.append(_FilledView(begin, pixels, np.zeros(rows, bool)))
            begin += self.batch_size * image_bytes([geometry])
        return _Filling(start, stop, slot, views, rows)

    def _send(self, process: Process, batch: _Filling, start: int, stop: int, numbers: Sequence[int]) -> None:
        if not process.jobs:
            process.waited = 0.0
        process.jobs.append((batch, start, stop))
        # A worker that has died is found by its sentinel.
        with contextlib.suppress(OSError):
            process.pipe.send(("rows", start, stop, batch.places(start, numbers)))

    def _collect(self) -> None:
        busy = [process for process in self.pool.processes if process.jobs]
        watched = [p.pipe for p in busy] + [p.process.sentinel for p in busy]
        found, waited = _look(watched, _LOOK_SECONDS)
        ready = set(found)
        for process in busy:
            process.waited += waited
            if process.pipe in ready:
                try:
                    answer = process.pipe.recv()
                except (EOFError, OSError):
                    self._rescue(process)
                else:
                    self._take(process, answer)
            elif process.process.sentinel in ready or process.waited > self.limits.stuck_seconds:
                self._rescue(process)

    def _take(self, process: Process, answer: tuple[Any, ...]) -> None:
        if answer[0] == "stopped":
            raise answer[1]
        if answer[0] == "failed":
            self._rescue(process)
            return
        batch, start, stop = process.jobs.popleft()
        process.waited = 0.0
        batch.take(start, self.all, answer[1])
        batch.missing -= stop - start
        batch.seconds += answer[2]

    def _rescue(self, process: Process) -> None:
        """Decode a failed piece image by image, each in a process that may die of it; a new one does the others."""
        (batch, start, stop), *others = process.jobs
        index = self.pool.processes.index(process)
        self._replace(index)
        for row in range(start, stop):
            together = self._try_alone(index, batch, row, self.all)
            for number in self.all if together else ():
                # One of several geometries may be what the process dies of.
                reason = self._try_alone(index, batch, row, [number]) if len(self.all) > 1 else together
                if reason:
                    batch.refuse(row, number, reason)
            batch.missing -= 1
        for other, start, stop in others:
            self._send(self.pool.processes[index], other, start, stop, self.all)

    def _try_alone(self, index: int, batch: _Filling, row: int, numbers: Sequence[int]) -> str:
        """Have one image decoded by the worker at ``index``, which lives afterwards; return why it could not be."""
        answer: tuple[Any, ...] = ()
        for _ in range(TRIES_ALONE):
            process = self.pool.processes[index]
            self._send(process, batch, row, row + 1, numbers)
            answer = self._wait_for(process)
            if answer[0] in ("done", "stopped", "failed"):
                process.jobs.clear()
                break
            self._replace(index)
            if answer[0] == "hung":
                break
        if answer[0] == "stopped":
            raise answer[1]
        if answer[0] != "done":
            return str(answer[1])
        batch.take(row, numbers, answer[1])
        batch.seconds += answer[2]
        return ""

    def _replace(self, index: int) -> None:
        """Put a new process in the place of one that has died or is of no use."""
        self.pool.replace(index).pipe.send(("dataset", self.dataset, self.geometries))

    def _wait_for(self, process: Process) -> tuple[Any, ...]:
        limit = self.limits.stuck_image_seconds
        while process.waited < limit:
            ready, waited = _look([process.pipe, process.process.sentinel], min(_LOOK_SECONDS, limit - process.waited))
            process.waited += waited
            if process.pipe in ready:
                with contextlib.suppress(EOFError, OSError):
                    answer: tuple[Any, ...] = process.pipe.recv()
                    return answer
            if ready:
                return ("crashed", "the decoder crashed on it")
        return ("hung", "the decoder hung on it")


def _look(watched: list[Any], seconds: float) -> tuple[list[Any], float]:
    """Return which of these are ready, and how long that was waited for, as far as this process was running."""
    begun = time.monotonic()
    ready = connection.wait(watched, timeout=seconds)
    return ready, min(time.monotonic() - begun, _MOST_OF_A_LOOK)
