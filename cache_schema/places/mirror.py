"""The local block cache: what was read of caches at addresses, kept on this machine up to a size."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from cache_schema.errors import CacheError, UserError, is_full
from cache_schema.user_cache import user_cache, write_whole

VARIABLE = "CLOSERLOOK_MIRROR"
SIZE_VARIABLE = "CLOSERLOOK_MIRROR_GB"
DEFAULT_GB = 50.0
IN_USE_SECONDS = 300.0
"""What was used so recently stays, whatever the size: somebody may be reading it."""
PART_SECONDS = 86_400.0
"""A part of a file that nobody has finished for so long is a dead process's."""
_LOOK_AFTER = 1 / 20
"""Share of the size that may be written before the folder is looked through again."""


def mirror_folder() -> Path:
    """Return where files of remote caches are kept: ``$CLOSERLOOK_MIRROR``, else below the user's cache
    folder.
    """
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else user_cache() / "mirror"


def mirror_bytes() -> int:
    """Return how many bytes the block cache may hold: ``$CLOSERLOOK_MIRROR_GB`` times 10^9, else 50 GB."""
    told = os.environ.get(SIZE_VARIABLE, "")
    try:
        size = float(told) if told else DEFAULT_GB
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise UserError(f"{SIZE_VARIABLE}={told!r} is no number of gigabytes such as 50")
    return int(size * 1e9)


class Mirror:
    """The block cache. Several processes may share its folder.

    Parameters
    ----------
    folder
        Of the block cache; see :func:`mirror_folder`.
    limit
        Bytes above which what was not used for longest is deleted; see :func:`mirror_bytes`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._written = limit  # looked through at the first writing

    def write(self, path: Path, raw: bytes) -> None:
        """Keep a file, so that it is there whole or not at all."""
        self.make_room(len(raw))
        try:
            write_whole(path, raw)
        except OSError as error:
            if not is_full(error) or not self.trim(self.limit // 2):
                raise self.refused(error) from error
            try:
                write_whole(path, raw)
            except OSError as again:
                raise self.refused(again) from again

    def refused(self, error: OSError) -> CacheError:
        """Return why nothing can be kept, and the mend."""
        return CacheError(
            f"{self.folder} cannot take what is read of the remote cache: {error.strerror or error};"
            f" make room, or name another folder with {VARIABLE}"
        )

    def make_room(self, size: int) -> None:
        """Count bytes that are about to be written, and trim now and then."""
        with self._lock:
            self._written += size
            due = self._written > self.limit * _LOOK_AFTER
            if due:
                self._written = 0
        if due:
            self.trim(self.limit)

    def trim(self, limit: int) -> int:
        """Delete what was not used for longest until at most ``limit`` bytes are left; returns the bytes
        deleted.
        """
        now, files, freed = time.time(), [], 0
        for at, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(at, name)  # noqa: PTH118  a hundred thousand of them
                try:
                    stat = os.stat(path)  # noqa: PTH116
                except OSError:
                    continue
                if name.startswith(".") and now - stat.st_mtime > PART_SECONDS:
                    freed += _delete(path, stat.st_size)
                elif not name.startswith("."):
                    files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= limit or now - used < IN_USE_SECONDS:
                break
            freed += _delete(path, size)
            total -= size
        return freed


def _delete(path: str, size: int) -> int:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return 0
    return size


def touch(path: Path) -> bool:
    """Note that a file is in use; False where it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # of another user's, or read-only: then nobody deletes it from here either
        return path.exists()
    return True
