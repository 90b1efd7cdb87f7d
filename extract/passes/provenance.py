"""Where a number came from: versions, commit, command, machine."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from closerlook_common.distribution import NAME, VERSION
from closerlook_common.redaction import redact
from extract.libraries import registry

DISTRIBUTIONS = ("torch", "torchvision", "numpy", "pillow", "zarr", "h5py")
"""Besides those of the model libraries."""


def now() -> str:
    """Return the time in UTC to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of everything that can move a number."""
    found = {"python": platform.python_version(), NAME: VERSION}
    libraries, _ = registry.every()
    for name in dict.fromkeys((*DISTRIBUTIONS, *(library.distribution for library in libraries))):
        try:
            found[name] = version(name)
        except (PackageNotFoundError, ValueError):
            continue
    return found


@functools.cache
def commit() -> dict[str, Any]:
    """Return the commit of this package's own checkout and whether it was changed; empty for an installed wheel."""
    here = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        # A wheel inside somebody else's checkout must not claim that checkout's commit.
        if not git("ls-files", "--", "passes/" + Path(__file__).name):
            return {}
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return {}


def describe_run(*, device: str, device_name: str, precision: str, batch_size: int) -> dict[str, Any]:
    """Return the part of a store's record that says how it was made; none of it is part of the identity."""
    return {
        "written_at": now(),
        "command": redact(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "device": device,
        "device_name": device_name,
        "precision": precision,
        "batch_size": batch_size,
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        **commit(),
    }
