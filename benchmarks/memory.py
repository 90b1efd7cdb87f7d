"""The memory that a process had at most."""

from __future__ import annotations

import re
from pathlib import Path


def peak_kib() -> int:
    """Return the process's largest memory so far in KiB.

    Not ``ru_maxrss``: a program that another one starts takes over the peak of its parent.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])
