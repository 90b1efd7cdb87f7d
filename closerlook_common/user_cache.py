"""The user's cache folder, for what can be fetched or computed again; files appear whole or not at all."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from closerlook_common.errors import UserError

if sys.platform != "win32":
    import fcntl

PART_SECONDS = 86_400.0
"""Age after which an unfinished file counts as left by a dead process."""


def user_cache() -> Path:
    """Return the folder: ``$XDG_CACHE_HOME/closerlook``, else ``~/.cache/closerlook``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "closerlook"
    except RuntimeError:
        raise UserError("no home folder was found: set HOME, or XDG_CACHE_HOME to a folder for caches") from None


def require_own(folder: Path, remedy: str, *, shared: bool = False) -> None:
    """Refuse a folder that another user of this machine can write to; a missing folder is accepted.

    Parameters
    ----------
    folder
        Folder whose files will be trusted.
    remedy
        What to do, for the error.
    shared
        Whether the folder may belong to another user, such as a group's. It must never be writable by all.
    """
    if sys.platform == "win32":
        return
    try:
        status = folder.stat()
    except OSError:
        return
    if status.st_mode & stat.S_IWOTH:
        raise UserError(f"every user of this machine can write to {folder}: chmod o-w it, or {remedy}")
    if not shared and status.st_uid != os.geteuid():
        raise UserError(f"{folder} belongs to another user (id {status.st_uid}): {remedy}")


def kept_folder(name: str) -> Path | None:
    """Return a folder of the user's cache folder for what can be computed again, created if needed.

    Returns
    -------
    Path or None
        None where nothing can be kept: the folder, or the home that it would lie in, belongs to another user, every
        user can write to it, or it cannot be created. What another user has put there is not read.
    """
    folder = user_cache() / name
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if sys.platform != "win32" and there != folder and there.stat().st_uid not in (0, os.geteuid()):
            return None
        make_own(folder, "")
    except (OSError, UserError, StopIteration):
        return None
    return folder


def make_own(folder: Path, remedy: str, *, shared: bool = False) -> None:
    """Create a folder that only this user can enter; check an existing one with :func:`require_own`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    require_own(folder, remedy, shared=shared)


def gigabytes(variable: str, default: float) -> int:
    """Return the bytes that an environment variable allows, given in gigabytes (10^9 bytes).

    Raises
    ------
    UserError
        The variable is not a finite number of 0 or more.
    """
    given = os.environ.get(variable, "")
    try:
        size = float(given) if given else default
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size >= 0):
        raise UserError(f"{variable}={given} is not a number of gigabytes such as {default:g}")
    return int(size * 1e9)


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file so that other processes see all of it or nothing; create its folder if needed."""
    part = part_of(path)
    try:
        part.write_bytes(raw)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden path to write to, then rename it to ``path``.

    Readers see either the old file or the new one, even if the writer is killed or several write at once. Parts
    that a killed writer left behind are deleted a day later.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; name a file to write")
    part = part_of(path)
    _delete_old_parts(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on the folder of a file, so that processes that change the file do not lose each other's changes.

    Creates the folder. Does nothing on file systems without locks.
    """
    folder = path.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    handle = -1
    try:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                handle = os.open(folder, os.O_RDONLY)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _delete_old_parts(path: Path) -> None:
    form = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            if form.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > PART_SECONDS:
                Path(entry.path).unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return a hidden path next to ``path`` that no other thread or process uses; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
