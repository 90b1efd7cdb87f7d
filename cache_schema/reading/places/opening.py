"""Open the place that a path or an address names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache_schema.reading.places.addresses import is_address
from cache_schema.reading.places.base import LocalPlace, Place


def open_place(path: Path | str, options: Mapping[str, Any] | None = None) -> Place:
    """Return the place that a path or an address names.

    Parameters
    ----------
    path
        A folder, or an address that fsspec knows.
    options
        For fsspec, such as ``{"anon": True}``.
    """
    if is_address(path):
        if str(path).lower().startswith(("file://", "local://")):
            return LocalPlace(local_path(str(path)))  # a local folder needs no copies
        from cache_schema.reading.places.remote import RemotePlace

        return RemotePlace(str(path), options)
    return LocalPlace(Path(path))


def local_path(address: str) -> Path:
    """Return the folder that a ``file://`` address names."""
    rest = re.sub(r"^localhost(?=/)", "", address.partition("://")[2])
    # file:///C:/cache is C:/cache, file:///cache is /cache.
    return Path(rest[1:] if re.match(r"/[A-Za-z]:", rest) else rest)
