"""CSV files as people have them: which separator, and what is no UTF-8 text with lines."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from closerlook_common.errors import UserError

SEPARATORS = (",", ";", "\t", "|")

_HEAD = 1 << 20
_COMPRESSED = (
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
    b"\x78\x01",
    b"\x78\x9c",
    b"\x78\xda",
    b"PK\x03\x04",
)
"""First bytes of gzip, zstd, xz, zlib and zip files."""
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")


def is_packed(path: Path) -> bool:
    """Return whether a file's name says that it is compressed."""
    return path.suffix.lower() in _PACKED


def first_line(path: Path) -> str:
    """Return the first line of a CSV file.

    Raises
    ------
    UserError
        The file is compressed, not UTF-8, or its lines end in a carriage return alone.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_COMPRESSED):
        raise UserError(f"{path} is compressed; unpack it first")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{path} is not UTF-8 text; save it as CSV in UTF-8")
    raw = head.partition(b"\n")[0].removesuffix(b"\r")
    if b"\r" in raw and b"\n" not in head:
        raise UserError(f"{path}: its lines end in a carriage return alone; save it with line feeds")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None


def cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line."""
    try:
        return next(csv.reader([line], delimiter=separator), [""])
    except csv.Error:
        return line.split(separator)


def separator_of(line: str, known: Collection[str] = ()) -> str:
    """Return the separator of a first line: that of most known names, then of most cells, then a comma.

    Examples
    --------
    >>> separator_of("image_id;label")
    ';'
    >>> separator_of("image_id,label,a;b;c;d", known=("label",))
    ','
    """

    def rank(separator: str) -> tuple[int, int, int]:
        names = cells(line, separator)
        return sum(name.strip().lower() in known for name in names), len(names), -SEPARATORS.index(separator)

    return max(SEPARATORS, key=rank)
