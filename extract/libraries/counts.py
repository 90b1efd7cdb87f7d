"""Counts of parameters and operations, remembered in the user's cache folder by library and its version."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

from closerlook_common.user_cache import kept_folder, write_whole
from extract.libraries.base import Library


class Counts:
    """Numbers of one kind, kept in one file a library; what is new is written at the end of the context.

    Parameters
    ----------
    kind
        Of the numbers: the folder that they are kept in.
    """

    def __init__(self, kind: str) -> None:
        self._folder = kept_folder(kind)
        self._known: dict[Path, dict[str, int | None]] = {}
        self._changed: set[Path] = set()

    def of(self, library: Library, key: str, count: Callable[[], int | None]) -> int | None:
        """Return a number, counted only where it is not known; nothing is kept of a library without a version."""
        file = self._file(library)
        if file is None:
            return count()
        known = self._known.setdefault(file, _read(file))
        if key not in known:
            known[key] = count()
            self._changed.add(file)
        return known[key]

    def _file(self, library: Library) -> Path | None:
        if self._folder is None:
            return None
        try:
            return self._folder / f"{library.name}-{version(library.distribution)}.json"
        except (PackageNotFoundError, ValueError):
            return None

    def __enter__(self) -> Counts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._changed:
            with contextlib.suppress(OSError):  # it can be computed again
                write_whole(file, json.dumps(self._known[file]).encode())


def _read(path: Path) -> dict[str, int | None]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
