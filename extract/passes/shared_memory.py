"""Memory that this process and those that decode share, taken as a whole before any of it is used."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util
from multiprocessing.heap import Arena
from pathlib import Path

from closerlook_common.errors import UserError


def folders() -> list[Path]:
    """Return where shared memory can lie; nothing is made for it yet."""
    return [Path("/dev/shm"), Path(tempfile.gettempdir())]


def shared_memory(n_bytes: int) -> Arena:
    """Return memory that spawned processes can be given.

    It is a file without a name in ``/dev/shm``, or in the folder for temporary files where that is too small, so that
    nothing is left behind after kill -9. Its room is taken here: a file system that fills up later would otherwise end
    any process that touches a page of it (SIGBUS), without a message.

    Raises
    ------
    UserError
        There is no room for it.
    """
    try:
        memory = Arena(n_bytes)
        handle = getattr(memory, "fd", -1)  # Windows has none, and takes the room by itself
        if handle >= 0 and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, n_bytes)
    except OSError as error:
        raise UserError(
            f"decoding images in several processes needs {n_bytes / 1e6:,.0f} MB of shared memory, and neither /dev/shm"
            f" nor {util.get_temp_dir()} has that room ({error.strerror}); use --workers 0 or a smaller --batch-size,"
            " enlarge /dev/shm (docker: --shm-size), or set TMPDIR to a folder with more room"
        ) from None
    return memory
