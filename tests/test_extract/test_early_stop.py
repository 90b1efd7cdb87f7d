"""Ctrl-C in the first seconds of a run, while the processes of the devices are only getting ready."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from extract.engines.local import _device_process
from extract.planning.options import RunOptions


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_process_that_is_still_importing_ends_without_a_word(tmp_path: Path, capfd) -> None:
    context = multiprocessing.get_context("spawn")
    units, todo = context.Pipe(duplex=False)
    events, printed = context.Pipe(duplex=False)
    process = context.Process(target=_device_process, args=(RunOptions(cache=tmp_path), units, printed))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 120
    while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    for end in (todo, events):
        end.close()
    out, error = capfd.readouterr()
    assert "Traceback" not in error + out
