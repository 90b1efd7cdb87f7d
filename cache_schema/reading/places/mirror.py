"""The mirror: files of remote caches, kept on this machine up to a size."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from pathlib import Path

from closerlook_common.errors import CacheError, is_full
from closerlook_common.user_cache import PART_SECONDS, gigabytes, make_own, require_own, user_cache, write_whole

VARIABLE = "CLOSERLOOK_MIRROR"
SIZE_VARIABLE = "CLOSERLOOK_MIRROR_GB"
DEFAULT_GB = 50.0
IN_USE_SECONDS = 300.0
"""Files used so recently are kept, whatever the size: a process may be reading them."""
_REMEDY = f"name another folder with {VARIABLE}"
_OF_THE_MIRROR = re.compile("[0-9a-f]{16}")
"""Names of the mirror's own folders; nothing else beside them is ever deleted."""
_LOOK_AFTER = 1 / 20
"""Share of the size that may be written before the folder is scanned again."""


def mirror_folder() -> Path:
    """Return the folder of the mirror: ``$CLOSERLOOK_MIRROR``, else a folder in the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else user_cache() / "mirror"


def mirror_bytes() -> int:
    """Return how many bytes the mirror may hold: ``$CLOSERLOOK_MIRROR_GB`` times 10^9, else 50 GB."""
    return gigabytes(SIZE_VARIABLE, DEFAULT_GB)


class Mirror:
    """The mirror. Several processes may share its folder.

    Parameters
    ----------
    folder
        Of the mirror; see :func:`mirror_folder`.
    limit
        Size in bytes above which the least recently used files are deleted; see :func:`mirror_bytes`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._made = False
        require_own(folder, _REMEDY)
        self._lock = threading.Lock()
        self._written = limit  # scan at the first write

    def write(self, path: Path, raw: bytes) -> None:
        """Write a file, whole or not at all."""
        self.make_room(len(raw))
        try:
            self.make()
            write_whole(path, raw)
        except OSError as error:
            if not is_full(error) or not self.trim(self.limit // 2):
                raise self.refused(error) from error
            try:
                write_whole(path, raw)
            except OSError as again:
                raise self.refused(again) from again

    def make(self) -> None:
        """Create the folder, which only this user can enter."""
        if not self._made:
            make_own(self.folder, _REMEDY)
            self._made = True

    def refused(self, error: OSError) -> CacheError:
        """Return the error for a folder that cannot be written to, with the fix."""
        return CacheError(
            f"{self.folder} cannot store files of the remote cache: {error.strerror or error};"
            f" free some space, or name another folder with {VARIABLE}"
        )

    def check_room(self, size: int, title: str) -> None:
        """Raise CacheError if a file of ``size`` bytes does not fit on the disk."""
        free = shutil.disk_usage(_existing(self.folder)).free
        if size > free:
            raise CacheError(
                f"{title} has {size:,} bytes, and {self.folder} has room for {free:,}; free some space, or name another"
                f" folder with {VARIABLE}"
            )

    def make_room(self, size: int) -> None:
        """Count bytes that are about to be written, and trim from time to time."""
        with self._lock:
            self._written += size
            due = self._written > self.limit * _LOOK_AFTER
            if due:
                self._written = 0
        if due:
            self.trim(self.limit)

    def trim(self, limit: int) -> int:
        """Delete the least recently used files until at most ``limit`` bytes are left; return the bytes deleted."""
        now, files, freed = time.time(), [], 0
        for at, folders, names in os.walk(self.folder):
            if Path(at) == self.folder:
                folders[:] = [name for name in folders if _OF_THE_MIRROR.fullmatch(name)]
                continue
            for name in names:
                path = os.path.join(at, name)  # noqa: PTH118  a hundred thousand of them
                try:
                    stat = os.lstat(path)
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


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


def _delete(path: str, size: int) -> int:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return 0
    return size


def touch(path: Path) -> bool:
    """Mark a file as in use; return False if it does not exist."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # read-only or of another user: not deleted from here either
        return path.exists()
    return True
