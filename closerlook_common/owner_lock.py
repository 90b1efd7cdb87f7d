"""Locks that a process holds on its unfinished files: stages of stores, claims on jobs, staged pixels.

The kernel releases a lock when its owner ends in any way. Locks of other machines may not be visible on a network disk:
there only the time of the last change shows whether the owner still runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

_LARGEST = 4096
"""Largest note of an owner in bytes."""


def try_lock(handle: int) -> bool | None:
    """Try to lock an open file.

    Parameters
    ----------
    handle
        Of the file; closing it releases the lock.

    Returns
    -------
    bool or None
        True if it is locked now, False if another process holds the lock, None if the file system has no locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock_as_owner(handle: int) -> None:
    """Lock an empty open file, and write into it which process owns it."""
    try_lock(handle)
    os.write(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id()}).encode())


def read_owner(handle: int) -> dict[str, Any]:
    """Return ``host``, ``pid`` and ``boot`` of the owner of an open file; empty if it names none."""
    try:
        owner = json.loads(os.pread(handle, _LARGEST, 0) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def owner_runs(handle: int) -> bool | None:
    """Return whether the owner of an open file still runs; None if it ran on another machine, or before a reboot."""
    owner = read_owner(handle)
    if not owner or owner.get("boot") != boot_id() or not owner["boot"]:
        return None
    taken = try_lock(handle)
    if taken is not None:
        return not taken
    return _runs(owner.get("pid"))


def boot_id() -> str:
    """Return the id of this boot of the kernel; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def file_system_time(folder: Path) -> float:
    """Return the time of the file system of a folder: clocks of machines differ, that of a file server is one.

    Returns this machine's time if the folder cannot be written to.
    """
    probe = folder / f".time-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _runs(pid: Any) -> bool:
    if type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
