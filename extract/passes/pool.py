"""The processes that decode, and the memory that they share with this one."""

from __future__ import annotations

import multiprocessing
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from multiprocessing.heap import Arena
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.passes.decoding_process import decode_forever
from extract.passes.shared_memory import shared_memory


@dataclass(eq=False)
class Process:
    """One process that decodes.

    Attributes
    ----------
    process, pipe
        As they are; a process that has died is found by its sentinel.
    jobs
        What it was asked for and has not answered, the oldest first.
    waited
        Seconds since it answered last, as far as this process was running.
    """

    process: SpawnProcess
    pipe: connection.Connection
    jobs: deque[Any] = field(default_factory=deque)
    waited: float = 0.0

    def stop(self) -> None:
        """End it, at once where it is in the middle of something."""
        self.pipe.close()
        self.process.kill() if self.jobs else self.process.join(1.0)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


class Pool:
    """Keeps a number of processes running, whatever becomes of each.

    Parameters
    ----------
    size
        Number of processes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.processes: list[Process] = []
        self.buffer: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._context = multiprocessing.get_context("spawn")
        self._memory: Arena | None = None

    def start(self, n_bytes: int) -> None:
        """Start the processes, with so much memory; they get ready while this process does something else."""
        if n_bytes > self.buffer.size:
            self.close()
            self._memory = shared_memory(n_bytes)
            self.buffer = np.frombuffer(self._memory.buffer, dtype=np.uint8)
        while len(self.processes) < self.size:
            self.processes.append(self._new())

    def replace(self, index: int) -> Process:
        """End a process and return a new one in its place."""
        self.processes[index].stop()
        self.processes[index] = self._new()
        return self.processes[index]

    def close(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.stop()
        self.processes = []
        self._memory, self.buffer = None, np.empty(0, np.uint8)

    def _new(self) -> Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=decode_forever, args=(theirs, self._memory), daemon=True)
        process.start()
        theirs.close()
        return Process(process, ours)
