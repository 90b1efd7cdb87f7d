"""The process that decodes: rows are asked for through a pipe, their pixels go into shared memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.heap import Arena
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.datasets.base import Dataset
from extract.passes.image_rows import DatasetStoppedError, decode_rows

if TYPE_CHECKING:
    from extract.models.base import Geometry


def decode_forever(pipe: connection.Connection, memory: Arena) -> None:
    """Decode what comes down the pipe until it closes.

    Messages are ``("dataset", Dataset, geometries)``, and of that dataset ``("rows", start, stop, places)``, where
    ``places`` holds pairs of a geometry's number and the byte at which its pixels begin. Each of the latter is answered
    with ``("done", list of Rows, seconds)``, ``("stopped", error)`` or ``("failed", reason)``.
    """
    buffer = np.frombuffer(memory.buffer, dtype=np.uint8)
    dataset: Dataset | None = None
    geometries: Sequence[Geometry] = ()
    # Ctrl-C reaches the whole process group; the parent closes the pipe, which ends this loop.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        if message[0] == "dataset":
            dataset, geometries = message[1:]
            continue
        _, start, stop, places = message
        assert dataset is not None
        wanted, outs = [], []
        for number, begin in places:
            shape = (stop - start, *geometries[number].output_size, 3)
            wanted.append(geometries[number])
            outs.append(buffer[begin : begin + int(np.prod(shape))].reshape(shape))
        begun = time.perf_counter()
        try:
            found = decode_rows(dataset, wanted, start, stop, outs)
            answer: tuple[Any, ...] = ("done", found, time.perf_counter() - begun)
        except DatasetStoppedError as error:
            answer = ("stopped", error)
        except Exception as error:  # noqa: BLE001  # whatever a decoder raises is the parent's to sort out
            answer = ("failed", f"{type(error).__name__}: {error}")
        try:
            pipe.send(answer)
        except OSError:
            return
