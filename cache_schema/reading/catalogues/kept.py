"""Where catalogues are kept, and how they are read and replaced."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cache_schema.format.plain_files import open_plain
from cache_schema.format.schema import SCHEMA_VERSION
from cache_schema.reading.catalogues.columns import Columns, encode, parse
from cache_schema.reading.catalogues.rows import Row
from closerlook_common.distribution import VERSION
from closerlook_common.errors import CacheError, UserError
from closerlook_common.user_cache import kept_folder, part_of

FOLDER = "catalogues"
LARGEST = 256 << 20
"""Largest catalogue in bytes; one of 100,000 stores takes about 30 MB."""
UNUSED_SECONDS = 90 * 86_400.0
"""Catalogues that were not used for so long are deleted."""
_USED_AGAIN = 86_400.0
_NAME = re.compile(r"\.?[0-9a-f]{32}\.catalogue(\.[0-9]+\.[0-9a-f]{8})?")


class KeptCatalogue:
    """The catalogue of one cache, in the cache folder of the user.

    It is not kept in the cache itself. What a catalogue holds of a store is trusted until the store is opened, so
    nobody else may write it: not another user of a shared cache, not the author of a downloaded one. This way a
    read-only cache has a catalogue too, and the cache gets no file that ``push``, ``pull``, ``check`` or a copy would
    have to skip.

    Parameters
    ----------
    folder
        Of the cache.

    Attributes
    ----------
    is_wrong
        Whether it was found to contradict a store; it is not used any more then.
    """

    def __init__(self, folder: Path) -> None:
        where = os.path.realpath(folder)
        # A reader of another version may refuse other headers.
        self._about = {"cache": where, "version": VERSION, "schema": str(SCHEMA_VERSION)}
        self._name = f"{hashlib.sha256(os.fsencode(where)).hexdigest()[:32]}.catalogue"
        self.is_wrong = False

    def path(self) -> Path | None:
        """Return the file; None if nothing can be kept for this user."""
        try:
            folder = kept_folder(FOLDER)
        except UserError:  # no home folder
            return None
        return None if folder is None else folder / self._name

    def load(self) -> Columns | None:
        """Return the catalogue; None if there is none that can be used."""
        path = self.path()
        if path is None or self.is_wrong:
            return None
        try:
            with open_plain(path) as file:
                status = os.fstat(file.fileno())
                if not _is_own(status) or status.st_size > LARGEST:
                    return None
                raw = bytearray(status.st_size)
                if file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
                    return None
            columns = parse(bytes(raw), self._about)
        except (OSError, CacheError, ValueError):
            return None
        if time.time() - status.st_mtime > _USED_AGAIN:
            with contextlib.suppress(OSError):
                os.utime(path)
        return columns

    def save(self, rows: Sequence[Row]) -> None:
        """Replace the catalogue; no-op where that is not possible. Of several writers at once, the last one counts."""
        path = self.path()
        if path is None or self.is_wrong or not rows:
            return
        try:
            raw = encode(rows, self._about)
            if len(raw) > LARGEST:
                return
            part = part_of(path)
            try:
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                    file.write(raw)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            _delete_unused(path)
        except (OSError, UnicodeEncodeError):
            return

    def discard(self) -> None:
        """Delete a catalogue that does not fit the stores, and use none for this cache any more."""
        self.is_wrong = True
        if (path := self.path()) is not None:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_own(status: os.stat_result) -> bool:
    """Return whether only this user can have written a file."""
    if sys.platform == "win32":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _delete_unused(path: Path) -> None:
    with os.scandir(path.parent) as entries:
        for entry in list(entries):
            unused = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if entry.name != path.name and _NAME.fullmatch(entry.name) and unused > UNUSED_SECONDS:
                Path(entry.path).unlink(missing_ok=True)
