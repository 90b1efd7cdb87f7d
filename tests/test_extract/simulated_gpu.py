"""A GPU's order of events without a GPU: streams that run late, in any order that streams and events allow.

`Machine` takes the place of the ``torch`` that a module sees. What is handed to a stream is queued and runs at random
moments, or when somebody waits for it; memory that was freed is given out again at once, as torch's allocator does.
Values are real, so that whoever reads too early or writes too soon has wrong numbers.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

DEVICE = torch.device("cuda:0")
GARBAGE = 77


class Block:
    """Memory of a buffer and of all views of it."""

    def __init__(self, machine: Machine, size: int, *, on_device: bool) -> None:
        self.bytes = machine.taken(size) if on_device else np.full(size, GARBAGE, np.uint8)
        if on_device:
            weakref.finalize(self, machine.given_back, self.bytes)


class Buffer:
    """As much of a tensor as the pass uses."""

    def __init__(self, machine: Machine, block: Block, array: np.ndarray, *, is_cuda: bool) -> None:
        self.machine, self.block, self.array, self.is_cuda = machine, block, array, is_cuda
        self.shape, self.nbytes, self.device = array.shape, array.nbytes, DEVICE

    def __len__(self) -> int:
        return len(self.array)

    def _view(self, array: np.ndarray) -> Buffer:
        return Buffer(self.machine, self.block, array, is_cuda=self.is_cuda)

    def __getitem__(self, index: slice) -> Buffer:
        return self._view(self.array[index])

    def view(self, shape: tuple[int, ...]) -> Buffer:
        return self._view(self.array.reshape(shape))

    def permute(self, *axes: int) -> Buffer:
        return self._view(self.array.transpose(axes))

    def detach(self) -> Buffer:
        return self

    def float(self) -> Buffer:
        assert self.array.dtype == np.float32
        return self

    def numpy(self) -> np.ndarray:
        assert not self.is_cuda
        self.machine.step_at_random()
        return self.array

    def copy_(self, source: Buffer, *, non_blocking: bool) -> Buffer:
        assert non_blocking
        assert self.shape == source.shape
        # Of pinned memory torch's allocator remembers which streams use it; of device memory only the stream it is of.
        pinned = [buffer.block for buffer in (self, source) if not buffer.is_cuda]
        to, of = self.array, source.array

        def run(_keep: object = pinned) -> None:
            to[...] = of

        self.machine.put(run)
        return self


class Event:
    """Done when every recording of it was reached; one that was never recorded counts as done."""

    machine: Machine

    def __init__(self, *, enable_timing: bool = False, blocking: bool = False) -> None:
        self.timing, self.blocking = enable_timing, blocking
        self.recorded = self.reached = 0
        self.at = 0.0

    def record(self, stream: Stream) -> None:
        self.machine.check()
        self.recorded += 1
        stream.queue.append(("record", self, self.recorded))
        self.machine.step_at_random()

    def synchronize(self) -> None:
        if not self.machine.skips("synchronize", self):
            self.machine.run_until(lambda: self.reached == self.recorded)
        self.machine.check()

    def elapsed_time(self, end: Event) -> float:
        assert self.timing
        assert end.timing
        assert self.recorded
        assert end.recorded
        if not self.machine.omit:
            assert self.reached == self.recorded
            assert end.reached == end.recorded
        return 1000 * (end.at - self.at)


class Stream:
    """A queue of what is to run, wait and be recorded, in order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.queue: deque[tuple[str, Any, int]] = deque()
        machine.streams.append(self)

    def wait_event(self, event: Event) -> None:
        if not self.machine.skips("wait_event", self):
            self.queue.append(("wait", event, event.recorded))
        self.machine.step_at_random()

    def wait_stream(self, other: Stream) -> None:
        if not self.machine.skips("wait_stream", self):
            event = self.machine.Event()
            event.record(other)
            self.wait_event(event)

    def ready(self) -> bool:
        return bool(self.queue) and (self.queue[0][0] != "wait" or self.queue[0][1].reached >= self.queue[0][2])


class Machine:
    """Stands for ``torch``: what it does not know is torch's own.

    Parameters
    ----------
    seed
        Of the order in which things happen.
    omit
        A wait that is left out, as (method, by whom): a test of the test.
    lost_at
        The number of the operation that makes every later call fail.
    """

    def __init__(self, seed: int, *, omit: tuple[str, str] | None = None, lost_at: int = 0) -> None:
        self.random, self.omit, self.lost_at = random.Random(seed), omit, lost_at
        # A device may lag far behind, keep up, or favour one stream.
        self.eagerness = self.random.choice([0.0, 0.2, 0.6])
        self.favour = self.random.choice([0.0, 0.5, 1.0])
        self.lock = threading.RLock()
        self.streams: list[Stream] = []
        self.free: list[np.ndarray] = []
        self.ran = 0
        self.main = self.current = Stream(self)
        self.cuda = self
        event = type("Event", (Event,), {"machine": self})
        self.Event, self.set_device, self.empty_cache = event, lambda device: None, lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    # -- what the modules ask of torch ---------------------------------------------------------------------------

    def empty(self, shape: Any, *, dtype: torch.dtype, pin_memory: bool = False, device: Any = None) -> Buffer:
        """Return memory with something in it."""
        assert pin_memory != (device is not None)
        self.check()
        kind = np.dtype(np.uint8 if dtype == torch.uint8 else np.float32)
        size = int(np.prod(shape)) * kind.itemsize
        block = Block(self, size, on_device=not pin_memory)
        return Buffer(self, block, block.bytes[:size].view(kind).reshape(shape), is_cuda=not pin_memory)

    def taken(self, size: int) -> np.ndarray:
        """Return memory of the device: what was given back last, if it is enough."""
        with self.lock:
            for index in reversed(range(len(self.free))):
                if len(self.free[index]) >= size:
                    return self.free.pop(index)
        return np.full(size, GARBAGE, np.uint8)

    def given_back(self, memory: np.ndarray) -> None:
        """Take memory that nobody refers to; what was queued may still use it."""
        with self.lock:
            self.free.append(memory)

    def cat(self, parts: list[Buffer]) -> Buffer:
        """Put parts together, on the device."""
        out = self.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=torch.float32, device=DEVICE)
        to, of = out.array, [part.array for part in parts]
        self.put(lambda: np.concatenate(of, out=to))
        return out

    def Stream(self, device: torch.device) -> Stream:
        """Return a new stream."""
        return Stream(self)

    def current_stream(self, device: torch.device) -> Stream:
        """Return the stream that operations go to."""
        return self.current

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        """Let operations go to another stream for a while."""
        before, self.current = self.current, stream
        yield
        self.current = before

    # -- time ----------------------------------------------------------------------------------------------------

    def put(self, run: Callable[[], object]) -> None:
        """Queue an operation on the current stream."""
        self.check()
        self.current.queue.append(("run", run, 0))
        self.step_at_random()

    def check(self) -> None:
        """Fail as CUDA does once an operation has gone wrong."""
        if self.lost_at and self.ran >= self.lost_at:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def skips(self, method: str, by: Event | Stream) -> bool:
        """Return whether a wait is the one that is left out."""
        if isinstance(by, Stream):
            who = "computing" if by is self.main else "copying"
        else:
            who = "writer" if threading.current_thread() is not threading.main_thread() else "loop"
        return (method, who) == self.omit

    def step(self) -> bool:
        """Let one thing happen; False where nothing can."""
        with self.lock:
            ready = [stream for stream in self.streams if stream.ready()]
            if not ready:
                return False
            stream = ready[-1] if self.random.random() < self.favour else self.random.choice(ready)
            kind, what, count = stream.queue.popleft()
            self.ran += 1
            if self.lost_at and self.ran >= self.lost_at:
                return True
            if kind == "run":
                what()
            elif kind == "record":
                what.reached, what.at = max(what.reached, count), float(self.ran)
            return True

    def step_at_random(self) -> None:
        """Let nothing, something or much happen."""
        with self.lock:
            while self.random.random() < self.eagerness and self.step():
                pass

    def run_until(self, there: Callable[[], bool]) -> None:
        """Let things happen until something is so."""
        with self.lock:
            while not there():
                if self.lost_at and self.ran >= self.lost_at:
                    return
                assert self.step(), "everybody waits for everybody"
