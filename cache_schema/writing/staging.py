"""Stage a store in a hidden folder, and publish it by one rename that never overwrites."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from cache_schema.backends.syncing import sync_folder
from cache_schema.format.naming import store_folders
from closerlook_common.errors import CacheError, StoreExistsError
from closerlook_common.owner_lock import file_system_time, lock_as_owner, owner_runs

if sys.platform != "win32":
    pass

PREFIX = ".staged-"
LOCK_NAME = "owner.json"
REPLACED, DROPPED = "replaced", "dropped"
IDLE_HOURS = 24.0
"""Hours without any change after which a stage of another machine counts as stale."""

_PARTS = re.compile(r"^\.staged-(?P<host>.+?)-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})-(?P<name>.+)$")
_RENAME_NOREPLACE = 1


class Stage:
    """A hidden folder ``.staged-<host>-<pid>-<token>-<name>`` beside the target; removed on exit.

    Its owner holds a lock on its ``owner.json``, which the kernel releases when the process ends in any way.

    Parameters
    ----------
    target
        Path of the store to be.

    Attributes
    ----------
    path
        Path that the store is written to.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9.]+", ".", socket.gethostname()) or "host"
        self.folder = target.parent / f"{PREFIX}{host}-{os.getpid()}-{secrets.token_hex(4)}-{target.name}"
        self.path = self.folder / target.name
        self._lock, self._left = -1, False
        try:
            self.folder.mkdir()
            self._lock = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
            lock_as_owner(self._lock)
        except OSError:  # a full disk; a stage without owner would count as live for a day
            self.remove()
            raise

    def check(self) -> None:
        """Raise `CacheError` if the folder was removed or moved, so that part of the store is missing."""
        try:
            there, mine = os.stat(self.folder / LOCK_NAME), os.fstat(self._lock)  # noqa: PTH116
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except OSError:
            pass
        raise CacheError(
            f"{self.folder} was removed or moved while {self.target.name} was written; nothing was published,"
            " run the same command again"
        )

    def publish(self, *, replaces: Path | None = None) -> None:
        """Give the finished store its name.

        Parameters
        ----------
        replaces
            A published store to move out of the way first. Without it an existing target is an error.
        """
        self.check()
        if replaces is not None:
            _drop_replaced(self.folder)  # from an earlier try
            (self.folder / REPLACED).mkdir()
            with contextlib.suppress(FileNotFoundError):  # another writer replaces it too, and one will publish
                replaces.rename(self.folder / REPLACED / replaces.name)
        try:
            publish(self.path, self.target)
        except BaseException:
            _put_back(self.folder)
            raise
        self.remove()

    def leave(self) -> None:
        """Release the folder without deleting it, for :func:`adopt` to take over."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._left = True

    def remove(self) -> None:
        """Delete the folder with its content."""
        _drop_replaced(self.folder)  # while the lock is held, so that no process puts it back
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._left:
            self.remove()


def publish(staged: Path, target: Path) -> None:
    """Rename a file or folder to a free name; StoreExistsError if the name is taken.

    Parameters
    ----------
    staged, target
        On one file system.
    """
    taken = f"{target} exists already; a published store is never overwritten"
    try:
        if staged.is_dir():
            if target.exists():
                raise StoreExistsError(taken)
            os.rename(staged, target)  # noqa: PTH104  onto a folder that is not empty this fails by itself
        else:
            try:
                os.link(staged, target)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                _rename_noreplace(staged, target)
            else:
                staged.unlink()
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise StoreExistsError(taken) from error
        raise
    sync_folder(target.parent)


def _rename_noreplace(staged: Path, target: Path) -> None:
    """Rename on file systems without hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise CacheError(f"{target.parent}: HDF5 files cannot be published safely on this file system; use Zarr stores")
    at_cwd = -100
    if libc.renameat2(at_cwd, os.fsencode(staged), at_cwd, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def stages(cache_path: Path | str) -> list[Path]:
    """Return every staged folder in a cache, live or stale."""
    return sorted(path for folder in store_folders(cache_path) for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def is_live(stage: Path, *, idle_hours: float = IDLE_HOURS) -> bool:
    """Return whether a stage's writer may still be running.

    On this machine (the same boot of the same kernel, containers included) the lock decides. Locks of other
    machines may not be visible here: their stages count as live until nothing in them has changed for
    ``idle_hours`` by the clock of the file system.

    Parameters
    ----------
    stage
        A folder from :func:`stages`.
    idle_hours
        See above.
    """
    try:
        handle = os.open(stage / LOCK_NAME, os.O_RDWR)
    except OSError:
        handle = -1
    if handle >= 0:
        try:
            runs = owner_runs(handle)
        finally:
            os.close(handle)
        if runs is not None:
            return runs
    return file_system_time(stage.parent) - _last_change(stage) < idle_hours * 3600


def _last_change(folder: Path) -> float:
    times = []
    for at, _, names in os.walk(folder):  # skips files that the owner removes meanwhile
        for name in (".", *names):
            try:
                times.append(os.stat(os.path.join(at, name)).st_mtime)  # noqa: PTH116, PTH118
            except OSError:
                times.append(time.time())
    return max(times, default=time.time())


def clean_stale(cache_path: Path | str, *, idle_hours: float = IDLE_HOURS) -> list[Path]:
    """Remove the stages of dead writers.

    Parameters
    ----------
    cache_path
        The cache.
    idle_hours
        See :func:`is_live`.

    Returns
    -------
    list of Path
        The stages that were removed.
    """
    removed = []
    for stage in stages(cache_path):
        if not is_live(stage, idle_hours=idle_hours):
            _put_back(stage)
            _drop_replaced(stage)
            shutil.rmtree(stage, ignore_errors=True)
            if not stage.exists():
                removed.append(stage)
    return removed


def adopt(stage: Stage) -> None:
    """Move the files of a dead writer of the same store into a new, empty stage.

    Parameters
    ----------
    stage
        Its writer must compare every byte with a seal before it publishes, as the files may hold anything.
    """
    for other in sorted(stage.target.parent.glob(f"{PREFIX}*")):
        parts = _PARTS.match(other.name)
        if parts is None or parts["name"] != stage.target.name or other == stage.folder or is_live(other):
            continue
        _put_back(other)
        if not stage.path.exists():
            with contextlib.suppress(OSError):  # nothing left, or another writer was first
                (other / stage.target.name).rename(stage.path)
        _drop_replaced(other)
        shutil.rmtree(other, ignore_errors=True)


def _put_back(stage: Path) -> None:
    """Restore an old store whose writer died after moving it away and before publishing the new one."""
    parts = _PARTS.match(stage.name)
    if parts is None or not (stage / REPLACED).is_dir() or (stage.parent / parts["name"]).exists():
        return
    with contextlib.suppress(FileNotFoundError, StoreExistsError):  # another process does the same
        for old in (stage / REPLACED).iterdir():
            publish(old, stage.parent / old.name)


def _drop_replaced(stage: Path) -> None:
    """Rename a replaced store before deleting it, so that no process restores it half deleted."""
    with contextlib.suppress(OSError):
        (stage / REPLACED).rename(stage / f"{DROPPED}-{secrets.token_hex(4)}")
