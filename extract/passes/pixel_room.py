"""How much memory decoded pixels take, and which geometries have room in it together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extract.models.view_recipe import VIEWS
from extract.passes.shared_memory import folders

if TYPE_CHECKING:
    from extract.models.base import Geometry

PIECES_AHEAD = 2
"""Pieces that a process has to do while the models work and nobody gives it new ones."""

MOST_BYTES = 2 << 30
MEMORY_SHARE = 1 / 16
FOLDER_SHARE = 1 / 8
"""All pixels of a pass together take at most so many bytes, such a part of the machine's memory, and of the room of the
folder that shared memory lies in. One geometry alone takes what it needs.
"""

_FEWEST, _MOST = 8, 64
"""Images that a process decodes at a time. All processes fill the first batch together, or the device would wait for
one of them to decode it alone; fewer images would be more messages, more would end at different times.
"""


def piece_of(batch_size: int, workers: int) -> int:
    """Return how many images of a batch a process decodes at a time."""
    return min(max(-(-batch_size // max(workers, 1)), _FEWEST), _MOST, batch_size)


def room_of(batch_size: int, workers: int) -> int:
    """Return how many images have room in memory: a batch in use, two that are filled, and what is done ahead."""
    return 3 * batch_size + PIECES_AHEAD * workers * piece_of(batch_size, workers)


def image_bytes(geometries: Sequence[Geometry]) -> int:
    """Return what an image takes at all of these geometries together."""
    return sum(3 * height * width for height, width in (geometry.output_size for geometry in geometries))


def rows_of_views(batch_size: int, geometry: Geometry, workers: int, most: int) -> int:
    """Return how many images a batch holds whose pixels are all views of each: as many views as a batch has images,
    fewer where ``most`` bytes have no room for them, one at least.
    """
    rows = max(batch_size // VIEWS, 1)
    while rows > 1 and (room_of(rows, workers) if workers else rows) * image_bytes([geometry]) > most:
        rows -= 1
    return rows


def most_bytes() -> int:
    """Return what the pixels of a pass may take on this machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = max((_free(folder) for folder in folders()), default=0)
    return int(min(MOST_BYTES, MEMORY_SHARE * total, FOLDER_SHARE * room))


def _free(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def together(geometries: Sequence[Geometry], batch_size: int, workers: int, most: int) -> list[list[Geometry]]:
    """Divide geometries, in their order, into as few groups as find room together in ``most`` bytes.

    Examples
    --------
    >>> from extract.preprocess import Geometry
    >>> small, large = (Geometry("squash", (side, side), (side, side)) for side in (10, 20))
    >>> [len(group) for group in together([small, large, small], batch_size=10, workers=0, most=16_000)]
    [2, 1]
    """
    rows = room_of(batch_size, workers) if workers else batch_size
    groups: list[list[Geometry]] = []
    for geometry in geometries:
        if groups and rows * image_bytes([*groups[-1], geometry]) <= most:
            groups[-1].append(geometry)
        else:
            groups.append([geometry])
    return groups
