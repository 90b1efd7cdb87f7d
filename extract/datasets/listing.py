"""The images below a folder, sorted by relative path: the order never depends on the file system."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from closerlook_common.errors import UserError, nearest
from extract.classes.unicode_names import composed, spellings, text_name
from extract.datasets.base import MISSING
from extract.datasets.images import is_image_name
from extract.datasets.leftovers import Leftovers
from extract.datasets.remarks import remark

_DRIVE = re.compile(r"[A-Za-z]:/")
_MOST_VISITS = 16
"""Links that lead to each other would otherwise multiply: twelve folders of eleven links have millions of paths."""


class Listed(NamedTuple):
    """One image file: POSIX path relative to the listed folder, and byte size."""

    path: str
    size: int


@dataclass
class Links:
    """Counts the links below a folder that lead out of it."""

    root: Path
    count: int = 0
    first: str = ""

    def add(self, path: str, name: str) -> None:
        """Count a link if its target, as it is written, lies outside the folder."""
        try:
            target = Path(path).readlink()
        except OSError:
            return
        base = str(self.root.absolute())
        leads = os.path.normpath(os.path.join(base, os.path.dirname(name), target))  # noqa: PTH118, PTH120
        if leads != base and not leads.startswith(base.rstrip(os.sep) + os.sep):
            self.count += 1
            self.first = self.first or f"{name!r} to {target}"

    def report(self) -> None:
        """Add a remark about them."""
        if self.count:
            many = f"{self.count:,} links lead" if self.count > 1 else "1 link leads"
            remark(f"{many} out of {self.root} and are followed (one from {self.first})")


def list_images(root: Path) -> list[Listed]:
    """List the image files below ``root`` by suffix, in any case, sorted by relative POSIX path.

    Hidden files and folders are left out (``._x.jpg`` is litter of macOS archives). Linked files and folders are
    followed, also out of ``root``, which is reported; each real folder once per branch, so that a circle of links
    ends. Files that look like images and are not read are reported by suffix. The order is that of the names' composed
    Unicode form (NFC), which is the same on every system.

    Raises
    ------
    UserError
        ``root`` is no folder, a folder below it may not be read, or a name is not valid Unicode.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder{_near_folder(root)}")
    left, links = Leftovers(), Links(root)
    found = list(_walk(root, left, links))
    left.report(root)
    links.report()
    return sorted(found, key=lambda item: (composed(item.path), item.path))


def holds_images(root: Path) -> bool:
    """Return whether there is any image file below ``root``; looks no further than the first."""
    return root.is_dir() and next(_walk(root), None) is not None


def _walk(root: Path, left: Leftovers | None = None, links: Links | None = None) -> Iterator[Listed]:
    # A stack, since folders may be nested deeper than Python's recursion goes.
    visits: Counter[str] = Counter()
    start = os.path.realpath(root)
    todo: list[tuple[str, str, str, frozenset[str]]] = [(str(root), start, "", frozenset({start}))]
    while todo:
        folder, place, prefix, above = todo.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = prefix + entry.name
            if is_folder(entry):
                # Only a link needs resolving, which takes a look at every folder above it.
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{place.rstrip(os.sep)}/{entry.name}"
                if real not in above:
                    if entry.is_symlink():
                        visits[real] += 1
                        if visits[real] > _MOST_VISITS:
                            raise UserError(f"{root}: links lead to {real} on more than {_MOST_VISITS} ways")
                    todo.append((entry.path, real, f"{name}/", above | {real}))
            elif is_image_name(entry.name):
                yield Listed(text_name(name, root), size_of(entry))
            elif left is not None:
                left.add(entry.path, name)
            if links is not None and entry.is_symlink():
                links.add(entry.path, name)


def size_of(file: Path | os.DirEntry[str]) -> int:
    """Return a file's size, `MISSING` where it cannot be had: a link to nowhere or to itself keeps its row, and
    reading it says why.
    """
    try:
        return file.stat().st_size
    except OSError:
        return MISSING


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or leads to one; a link that leads back to itself does not."""
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


def as_on_disk(name: str, root: Path) -> str:
    """Return a relative path in the Unicode form that the file system has it in; unchanged where there is none."""
    for spelled in spellings(name):
        if os.path.lexists(root / spelled):
            return spelled
    return name


def hint_for_missing(name: str, root: Path) -> str:
    """Return what may be meant by a relative path that leads to no file, or an empty string."""
    if (root.parent / name).exists():
        return f"; it is there below {root.parent}: set path = to that folder"
    folder = (root / name).parent
    base = PurePosixPath(name).name
    try:
        siblings = sorted(entry.name for entry in os.scandir(folder if folder.is_dir() else root))
    except OSError:
        return ""
    wanted = {base.casefold(), _stem(base).casefold()}
    same = [n for n in siblings if n.casefold() in wanted or (is_image_name(n) and _stem(n).casefold() in wanted)]
    if same:
        return f"; did you mean {same[0]!r}? Names are taken with their suffix and in their case"
    if "/" not in name:
        inside = sorted(place for place in root.glob(f"*/{_escaped(base)}*") if _stem(place.name) == _stem(base))
        if inside:
            return f"; did you mean {inside[0].relative_to(root).as_posix()!r}? Paths are relative to {root}"
    return nearest(base, siblings)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if is_image_name(name) else name


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _near_folder(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    return nearest(path.name, subfolders(parent))
