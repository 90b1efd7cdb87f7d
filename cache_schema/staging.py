"""Stage and publish: a hidden folder that its writer's death leaves recognisable; one rename that never
overwrites.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
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

from cache_schema.errors import CacheError, StoreExistsError
from cache_schema.naming import store_folders

if sys.platform != "win32":
    import fcntl

PREFIX = ".staged-"
LOCK_NAME = "owner.json"
REPLACED, DROPPED = "replaced", "dropped"
IDLE_HOURS = 24.0
"""A stage of another machine counts as stale when nothing in it has changed for so long."""

_PARTS = re.compile(r"^\.staged-(?P<host>.+?)-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})-(?P<name>.+)$")
_RENAME_NOREPLACE = 1


def boot_id() -> str:
    """Return what tells this running kernel from any other, or an empty string where there is no such
    thing.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Stage:
    """A hidden folder ``.staged-<host>-<pid>-<token>-<name>`` beside the target, removed on exit unless
    published.

    Its owner holds a lock on ``owner.json`` in it, which the kernel lets go when the process ends, however it
    ends.

    Parameters
    ----------
    target
        Path of the store to be.

    Attributes
    ----------
    path
        Where the store is written meanwhile.
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
            try_lock(self._lock)
            os.write(self._lock, json.dumps({"host": host, "pid": os.getpid(), "boot": boot_id()}).encode())
        except OSError:  # a full disk, where an owner without a name would count as alive for a day
            self.remove()
            raise

    def check(self) -> None:
        """Raise `CacheError` where the folder was removed or moved away: what is there now is not all of the store."""
        try:
            there, mine = os.stat(self.folder / LOCK_NAME), os.fstat(self._lock)  # noqa: PTH116
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except OSError:
            pass
        raise CacheError(
            f"{self.folder} was removed or moved while {self.target.name} was written; nothing of it is published,"
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
            _drop_replaced(self.folder)  # by a try before this one
            (self.folder / REPLACED).mkdir()
            with contextlib.suppress(FileNotFoundError):  # another writer is replacing it too: one of both will publish
                replaces.rename(self.folder / REPLACED / replaces.name)
        try:
            publish(self.path, self.target)
        except BaseException:
            _put_back(self.folder)
            raise
        self.remove()

    def leave(self) -> None:
        """Let go of the folder without deleting it, as its owner's death would: :func:`adopt` takes it over."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._left = True

    def remove(self) -> None:
        """Delete the folder and whatever is in it."""
        _drop_replaced(self.folder)  # while nobody can take this for a dead writer's
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
    """Rename a file or folder to a name that must be free; StoreExistsError where it is not.

    Parameters
    ----------
    staged, target
        On one file system.
    """
    taken = f"{target} is there already; a published store is never overwritten"
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
    """Rename where the file system knows no hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise CacheError(
            f"{target.parent}: this file system can publish no HDF5 file safely; use --store zarr"
        )
    at_cwd = -100
    if libc.renameat2(at_cwd, os.fsencode(staged), at_cwd, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def sync_folder(folder: Path) -> None:
    """Ask that a folder's entries reach the disk; quietly nothing where folders cannot be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Ask that a file reach the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def try_lock(handle: int) -> bool | None:
    """Take the lock: True taken, False somebody holds it, None where the file system has no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def stages(cache_path: Path | str) -> list[Path]:
    """Return every staged folder in a cache, live or stale."""
    return sorted(
        path for folder in store_folders(cache_path) for path in folder.glob(f"{PREFIX}*") if path.is_dir()
    )


def is_live(stage: Path, *, idle_hours: float = IDLE_HOURS) -> bool:
    """Return whether a stage's writer may still be at work.

    On the machine that runs this (the same boot of the same kernel, containers included) the lock tells. For
    a stage of another machine, whose locks need not be visible here, it is live until nothing in it has
    changed for ``idle_hours`` by the clock of the file system.

    Parameters
    ----------
    stage
        A folder that :func:`stages` named.
    idle_hours
        See above.
    """
    parts = _PARTS.match(stage.name)
    owner: dict[str, object] = {}
    try:
        handle = os.open(stage / LOCK_NAME, os.O_RDWR)
    except OSError:
        handle = -1
    try:
        if handle >= 0:
            try:
                owner = json.loads(os.read(handle, 4096) or b"{}")
            except ValueError:
                owner = {}
            if owner and owner.get("boot") == boot_id() != "":
                taken = try_lock(handle)
                if taken is not None:
                    return not taken
                return parts is not None and _runs(int(parts["pid"]))
    finally:
        if handle >= 0:
            os.close(handle)
    return file_system_time(stage.parent) - _last_change(stage) < idle_hours * 3600


def file_system_time(folder: Path) -> float:
    """Return what time it is for whoever stamps the files in a folder: clocks of nodes differ, one file server's not.

    This machine's own time where nothing can be written.
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


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _last_change(folder: Path) -> float:
    times = []
    for at, _, names in os.walk(folder):  # passes over what its owner removes meanwhile
        for name in (".", *names):
            try:
                times.append(os.stat(os.path.join(at, name)).st_mtime)  # noqa: PTH116, PTH118
            except OSError:
                times.append(time.time())
    return max(times, default=time.time())


def clean_stale(cache_path: Path | str, *, idle_hours: float = IDLE_HOURS) -> list[Path]:
    """Remove what dead writers left behind, and nothing of a live one.

    Parameters
    ----------
    cache_path
        The cache.
    idle_hours
        A stage of another machine is stale when nothing in it has changed for so long.

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
    """Move what a dead writer of the same store has staged into a stage that is still empty.

    Parameters
    ----------
    stage
        Of a writer that compares every byte with a seal before it publishes: what it is given may be anything.
    """
    for other in sorted(stage.target.parent.glob(f"{PREFIX}*")):
        parts = _PARTS.match(other.name)
        if parts is None or parts["name"] != stage.target.name or other == stage.folder or is_live(other):
            continue
        _put_back(other)
        if not stage.path.exists():
            with contextlib.suppress(OSError):  # there is nothing, or another writer was first
                (other / stage.target.name).rename(stage.path)
        _drop_replaced(other)
        shutil.rmtree(other, ignore_errors=True)


def _put_back(stage: Path) -> None:
    """Undo a replacement whose writer died between moving the old store away and publishing the new one."""
    parts = _PARTS.match(stage.name)
    if parts is None or not (stage / REPLACED).is_dir() or (stage.parent / parts["name"]).exists():
        return
    with contextlib.suppress(FileNotFoundError, StoreExistsError):  # somebody else is at it too
        for old in (stage / REPLACED).iterdir():
            publish(old, stage.parent / old.name)


def _drop_replaced(stage: Path) -> None:
    """Give up what was replaced, in one step: half deleted, nobody may take it for a store to put back."""
    with contextlib.suppress(OSError):
        (stage / REPLACED).rename(stage / f"{DROPPED}-{secrets.token_hex(4)}")
