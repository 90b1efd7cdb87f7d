"""The user's folder for what may be fetched or computed again: files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def user_cache() -> Path:
    """Return the folder: ``$XDG_CACHE_HOME/closerlook``, else ``~/.cache/closerlook``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "closerlook"


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file so that other processes see all of it or nothing; folders above it are made."""
    part = part_of(path)
    try:
        part.write_bytes(raw)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Return a hidden name beside a path that no other thread or process uses; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
