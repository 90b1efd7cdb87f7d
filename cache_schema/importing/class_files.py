"""Read a class mask (indices of classes) or a class map (members of super-classes) from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError
from closerlook_common.input_files import refuse_lfs_pointer

MOST_BYTES = 64 << 20
"""Largest file to read in bytes; 21,841 class indices take 130 kB."""


def read_class_mask(path: Path) -> tuple[int, ...]:
    """Return the class indices of a text file, sorted; separated by white space or commas."""
    found = _indices(_text(path), f"{path}: the class mask")
    if not found:
        raise UserError(f"{path}: the class mask holds no class index")
    return tuple(sorted(set(found)))


def read_class_map(path: Path) -> tuple[tuple[int, ...], ...]:
    """Return the member classes of each super-class, in the file's order.

    Parameters
    ----------
    path
        JSON (a list of lists, or an object of name -> list), or text with a line for each super-class: its members,
        optionally after ``name:``. Labels are numbered in this order.
    """
    text = _text(path)
    where = f"{path}: the class map"
    groups: list[list[int]] = []
    if path.suffix.lower() == ".json":
        try:
            held: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from error
        rows = list(held.values()) if isinstance(held, dict) else held
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise UserError(f"{where} must be a list of lists of class indices, or an object of such lists")
        for row in rows:
            if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in row):
                raise UserError(f"{where} holds {str(row)[:60]}, which are not class indices (0, 1, 2 ...)")
            groups.append(row)
    else:
        groups = [_indices(line.rpartition(":")[2], where) for line in text.splitlines() if line.strip()]
    if not groups or not all(groups):
        raise UserError(f"{where} needs at least one class in every super-class")
    members = [index for group in groups for index in group]
    if len(set(members)) != len(members):
        twice = next(index for index in members if members.count(index) > 1)
        raise UserError(f"{where} holds class {twice} twice")
    return tuple(tuple(group) for group in groups)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for class indices")
        refuse_lfs_pointer(path)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _indices(text: str, where: str) -> list[int]:
    found = []
    for word in re.split(r"[\s,]+", text.strip()) if text.strip() else []:
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise UserError(f"{where} holds {word[:60]!r}, which is not a class index (0, 1, 2 ...)")
        found.append(int(word))
    return found
