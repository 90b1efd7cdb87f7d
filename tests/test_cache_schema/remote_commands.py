"""Copying commands in processes of their own, to be killed, and what their caches hold afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cache_schema

ROOT = Path(__file__).parents[2]


def digests(cache: object) -> set[str]:
    """Return the digests of the stores that can be used."""
    return {store.digest for store in cache_schema.open_cache(str(cache)).stores()}


def command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cache_schema", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def killed_after(web: Any, n: int, *words: object) -> None:
    """Run a command and kill it once a server was asked ``n`` times more; what it has asked is answered by then."""
    before = len(web.asked)
    web.held_after = before + n
    process = command(*words)
    deadline = time.monotonic() + 120
    while len(web.asked) < before + n and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    web.let_go()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
