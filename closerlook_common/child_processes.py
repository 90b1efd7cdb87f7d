"""What a process that works for another does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import util
from multiprocessing.process import BaseProcess

ENDING_SECONDS = 5
"""How long a process that was asked to end may take to remove its semaphores before it is killed."""


def begin_child() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends; for ``initializer`` of a pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end(*_: object) -> None:
    """End at once, but remove semaphores first (numcodecs makes one): Python warns of those that are left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one, of a scheduler, must not cut this short
    signal.alarm(ENDING_SECONDS)  # in case a finalizer waits for a lock that is held where the signal came
    util._run_finalizers()  # type: ignore[attr-defined]  # the stubs leave it out
    os._exit(128 + signal.SIGTERM)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
