"""Limit the memory that reading a file may take to a small multiple of its size."""

from __future__ import annotations

from pathlib import Path

from closerlook_common.errors import UserError
from closerlook_common.input_files import LFS_REMEDY, is_lfs_pointer

FREE_BYTES = 1 << 30
"""Bytes that any file may decompress to."""

RATIO = 100
"""Largest ratio above that; one-hot probabilities of 1,000 classes stay below."""


def regular_file(path: Path) -> int:
    """Return the size of a file; UserError if it is missing, a folder, a pipe or a device."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a regular file")
    if is_lfs_pointer(path):
        raise UserError(f"{path} {LFS_REMEDY}")
    return path.stat().st_size


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse a file that would decompress to far more than its size."""
    size = regular_file(path)
    if n_bytes > max(FREE_BYTES, RATIO * size):
        raise UserError(
            f"{path} has {size:,} bytes and would take {n_bytes:,} in memory, more than {RATIO} times as much; write"
            " it again with less compression if it is yours"
        )


def plain(name: str, longest: int = 80) -> str:
    """Return a name from a file as one printable line."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[: longest + 1])
    return text if len(name) <= longest else f"{text[:longest]}..."
