"""Run commands that die at a chosen point of their writing; started by test_writers_killed_anywhere.py.

Reads one JSON object a line, runs the command in a fork of this process, and answers with its exit status (negative:
the signal that ended it), how many changes below the output folder it began, and what it printed to stderr.

A change is the opening of a file for writing, or the making, renaming, linking or removing of an entry. With ``change``
the command kills itself when it begins that one; with ``bytes`` the kernel kills it in the middle of the write that
makes any file longer than that, in whatever library the write is made.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

_FROM_FIRST = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime", "shutil.rmtree"}
_FROM_SECOND = {"os.rename", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def changed_path(event: str, args: tuple[Any, ...]) -> str:
    """Return the path that an audit event changes, or an empty string."""
    if event == "open":
        path, mode, flags = args
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
        return os.fsdecode(path) if writes and isinstance(path, (str, bytes, os.PathLike)) else ""
    place = 0 if event in _FROM_FIRST else 1 if event in _FROM_SECOND else None
    if place is None or not isinstance(args[place], (str, bytes, os.PathLike)):
        return ""
    return os.fsdecode(args[place])


def watch(out: str, begun: Callable[[], None]) -> None:
    """Call ``begun`` at each change below a folder."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if changed_path(event, args).startswith(out):
            begun()

    sys.addaudithook(hook)


def run(job: dict[str, Any], counts: int, errors: int) -> None:
    """Run a command in this process, which ends."""
    changes = itertools.count(1)  # next() gives each thread a number of its own

    def begun() -> None:
        change = next(changes)
        os.pwrite(counts, str(change).encode(), 0)
        if change == job.get("change"):
            os.kill(os.getpid(), job["signal"])

    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "bytes" in job:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["bytes"], resource.RLIM_INFINITY))
    watch(job["out"], begun)
    code = 99
    try:
        code = importlib.import_module(job["program"] + ".cli").main(job["words"])
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until the input ends."""
    for program in ("analyze", "cache_schema"):  # once, not in each fork
        package = importlib.import_module(program)
        for module in pkgutil.walk_packages(package.__path__, program + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryFile() as counts, tempfile.TemporaryFile() as errors:
            if (child := os.fork()) == 0:
                run(job, counts.fileno(), errors.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            counts.seek(0)
            errors.seek(0)
            answer = [status, int(counts.read() or 0), errors.read().decode(errors="replace")]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
