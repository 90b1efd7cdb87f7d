"""What this process is working on, shown to others that run on the same cache, so that they begin elsewhere.

A claim is advice: nobody needs one to write a store, and of two that write the same store one loses its time.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path

from cache_schema.format.naming import slug
from closerlook_common.owner_lock import file_system_time, lock_as_owner, owner_runs

FOLDER = ".claims"
TRIES = 20
BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""A claim that was not renewed for so long is nobody's; on its own machine the end of its process shows at once."""


class Claims:
    """The claims of one process on one cache.

    Parameters
    ----------
    cache
        Folder of the stores; the claims lie in a hidden folder of it.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER
        self._held: dict[str, int] = {}
        self._ahead = 0.0
        self._beaten = time.monotonic()

    def take(self, model: str, dataset: str, identity: str) -> bool:
        """Claim a store; False where another run has claimed it. A cache that takes no claims counts as free."""
        name = _name(model, dataset, identity)
        path = self._folder / name
        try:
            for _ in range(TRIES):
                # Written under another name first: a claim without its owner's name could not be judged.
                draft = self._folder / f".{os.getpid()}.{secrets.token_hex(4)}"
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
                except (FileExistsError, FileNotFoundError):
                    continue  # another run has given up its last claim, and the folder with it
                try:
                    self._ahead = os.fstat(handle).st_mtime - time.time()
                    lock_as_owner(handle)
                    os.link(draft, path)
                except FileExistsError:
                    os.close(handle)
                    if _is_live(path, self._ahead):
                        return False
                    path.unlink(missing_ok=True)
                    continue
                except OSError:
                    os.close(handle)
                    raise
                finally:
                    draft.unlink(missing_ok=True)
                self._held[name] = handle
                return True
        except OSError:
            return True
        return False

    def owner(self, model: str, dataset: str, identity: str) -> str:
        """Return which other process has claimed a store, in a few words; empty where none has."""
        name = _name(model, dataset, identity)
        path = self._folder / name
        if name in self._held or not _is_live(path, self._ahead):
            return ""
        try:
            given = json.loads(path.read_bytes())
            return f"process {given['pid']} on {given['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another run"

    def beat(self) -> None:
        """Renew the claims, now and then; to be called often."""
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        for name in self._held:
            with contextlib.suppress(OSError):
                os.utime(self._folder / name)

    def release(self) -> None:
        """Give up all claims."""
        for name, handle in self._held.items():
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
            os.close(handle)
        self._held = {}
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def clean_claims(cache: Path) -> None:
    """Remove the claims of runs that are over."""
    with contextlib.suppress(OSError):
        ahead = file_system_time(cache) - time.time()
        for path in (cache / FOLDER).iterdir():
            if not _is_live(path, ahead):
                path.unlink(missing_ok=True)
        (cache / FOLDER).rmdir()


def _name(model: str, dataset: str, identity: str) -> str:
    return f"{slug(model)}--{slug(dataset)}-{identity[:16]}"


def _is_live(path: Path, ahead: float) -> bool:
    """Return whether a claim's owner still runs; ``ahead`` is the file system's clock less this machine's."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        age = time.time() + ahead - os.fstat(handle).st_mtime
        return owner_runs(handle) is not False and abs(age) < STALE_SECONDS
    finally:
        os.close(handle)
