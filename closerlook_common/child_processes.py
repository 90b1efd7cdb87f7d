"""What a process that works for another does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import util
from multiprocessing.process import BaseProcess

ENDING_SECONDS = 5


def begin_child() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends; for ``initializer`` of a pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end(*_: object) -> None:
    """End at once, without leaving semaphores behind (numcodecs makes one), which Python would warn of."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler's may come together with the parent's
    signal.alarm(ENDING_SECONDS)  # the signal may have come where a lock is held that a finalizer waits for
    util._run_finalizers()  # type: ignore[attr-defined]  # the stubs leave it out
    os._exit(128 + signal.SIGTERM)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
