"""The images below a folder, sorted by relative path: the order never depends on the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cache_schema.errors import UserError, nearest
from extract.datasets.base import MISSING
from extract.datasets.images import is_image_name

_DRIVE = re.compile(r"[A-Za-z]:/")


class Listed(NamedTuple):
    """One image file: POSIX path relative to the listed folder, and byte size."""

    path: str
    size: int


def list_images(root: Path) -> list[Listed]:
    """List the image files below ``root`` by suffix, in any case, sorted by relative POSIX path.

    Hidden files and folders are left out (``._x.jpg`` is litter of macOS archives). Linked folders are
    followed, each real folder once per branch, so that a circle of links ends.

    Raises
    ------
    UserError
        ``root`` is no folder, or a folder below it may not be read.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder{_near_folder(root)}")
    return sorted(_walk(root, "", frozenset({os.path.realpath(root)})))


def holds_images(root: Path) -> bool:
    """Tell whether there is any image file below ``root``; looks no further than the first."""
    return root.is_dir() and next(_walk(root, "", frozenset({os.path.realpath(root)})), None) is not None


def _walk(folder: Path | str, prefix: str, above: frozenset[str]) -> Iterator[Listed]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            real = os.path.realpath(entry.path)
            if real not in above:
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {real})
        elif is_image_name(entry.name):
            yield Listed(prefix + entry.name, size_of(entry))


def size_of(file: Path | os.DirEntry[str]) -> int:
    """Return a file's size, `MISSING` where it cannot be had: a link to nowhere or to itself keeps its row, and
    reading it says why.
    """
    try:
        return file.stat().st_size
    except OSError:
        return MISSING


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or leads to one; a link that leads back to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def subfolders(root: Path) -> list[str]:
    """Return the names of the visible folders in ``root``, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if is_folder(entry) and not entry.name.startswith("."))


def safe_relative(text: str, root: Path, *, follow_links: bool = False, where: str = "") -> str:
    """Return a path read from a file as a clean relative POSIX path that stays below ``root``.

    Parameters
    ----------
    text
        The path as written; backslashes count as separators.
    root
        Folder it is relative to. An absolute path is taken only if it lies below it.
    follow_links
        Allow links inside ``root`` that lead out of it.
    where
        Names the file and line for messages.

    Raises
    ------
    UserError
        The path is empty, climbs out with ``..``, is absolute and elsewhere, or a link leads it out.
    """
    cleaned = text.strip().replace("\\", "/")
    if not cleaned or "\0" in cleaned:
        raise UserError(f"{where}: an empty path" if "\0" not in cleaned else f"{where}: a path with a zero byte")
    if Path(cleaned).is_absolute():
        if not Path(cleaned).is_relative_to(root):
            raise UserError(f"{where}: {text!r} lies outside {root}; set path = to the folder that holds the images")
        cleaned = Path(cleaned).relative_to(root).as_posix()
    parts = [part for part in PurePosixPath(cleaned).parts if part != "."]
    if not parts or ".." in parts or _DRIVE.match(cleaned):
        raise UserError(f"{where}: {text!r} leaves the folder {root}; paths are relative to it and stay below it")
    relative = "/".join(parts)
    if not follow_links:
        target = os.path.realpath(root / relative)
        if not Path(target).is_relative_to(os.path.realpath(root)):
            raise UserError(
                f"{where}: {text!r} is a link that leads out of {root} to {target}; follow_links = true allows that"
            )
    return relative


def _near_folder(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    return nearest(path.name, subfolders(parent))
