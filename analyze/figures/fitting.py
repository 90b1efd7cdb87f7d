"""Text that fits the room a layout left: titles and axis names get smaller, crowded matrices get numbers for names."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PathCollection

from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SMALLEST = 5.0
"""Font size below which titles and axis names are broken in two instead."""
SMALLEST_NUMBER = 3.6
"""Font size below which the numbers in a matrix are left out."""
SMALLEST_NAME = 3.0
"""Height of a row, in typographic points, below which a matrix's rows go without their names."""
GAP = 4.0
"""Typographic points kept free between the titles of neighbours."""


def fit_titles(page: Figure, grid: Any) -> bool:
    """Shrink titles and axis names, alike in all panels, until none reaches another; returns whether any did."""
    boxes = {id(ax): ax.get_window_extent() for ax in grid.ravel()}
    size = page.get_size_inches() * page.dpi
    across = _room([boxes[id(ax)] for ax in grid[0]], 0, float(size[0]))
    upright = _room([boxes[id(row[0])] for row in grid], 1, float(size[1]))
    changed = False
    for name in ("title", "xaxis.label", "yaxis.label"):
        texts: list[tuple[Text, float]] = []
        for r, row in enumerate(grid):
            for c, ax in enumerate(row):
                text: Text = ax.title if name == "title" else getattr(ax, name[:5]).label
                if ax.axison and text.get_text():
                    texts.append((text, upright[r] if name[0] == "y" else across[c]))
        changed |= _fit([text for text, _ in texts], [room for _, room in texts], page, upright=name[0] == "y")
    return changed


def _room(boxes: list[Any], axis: int, whole: float) -> list[float]:
    """Room for text centred on each box: to the neighbours' centres half way, and to the page's edge."""
    middles = [(box.x0 + box.x1) / 2 if axis == 0 else (box.y0 + box.y1) / 2 for box in boxes]
    steps = [abs(b - a) for a, b in pairwise(middles)]
    near = [min([*steps[max(i - 1, 0) : i], *steps[i : i + 1]], default=np.inf) for i in range(len(middles))]
    return [min(step, 2 * middle, 2 * (whole - middle)) for step, middle in zip(near, middles, strict=True)]


def _fit(texts: list[Text], rooms: list[float], page: Figure, *, upright: bool) -> bool:
    if not texts:
        return False
    gap = GAP * page.dpi / 72

    def share(text: Text, room: float) -> float:
        box = text.get_window_extent()
        return (room - gap) / max(box.height if upright else box.width, 1.0)

    smallest = min(share(text, room) for text, room in zip(texts, rooms, strict=True))
    if smallest >= 1:
        return False
    for text, room in zip(texts, rooms, strict=True):
        wanted = float(text.get_fontsize()) * smallest
        if wanted < SMALLEST and share(text, room) < 1:
            text.set_text(_broken(text.get_text()))
        text.set_fontsize(max(wanted, SMALLEST))
    return True


def _broken(words: str) -> str:
    """Break a line in two at the blank that is nearest to its middle."""
    blanks = [i for i, letter in enumerate(words) if letter == " "]
    if not blanks or "\n" in words:
        return words
    at = min(blanks, key=lambda i: abs(i - len(words) / 2))
    return f"{words[:at]}\n{words[at + 1 :]}"


def fit_cells(page: Figure, grid: Any) -> bool:
    """Make names and numbers of heat maps fit their cells; returns whether there was a heat map."""
    found = [ax for ax in grid.ravel() if any(image.get_gid() == "cells" for image in ax.images)]
    for ax in found:
        _fit_matrix(ax, page)
    return bool(found)


def _fit_matrix(ax: Axes, page: Figure) -> None:
    box = ax.get_window_extent()
    rows, columns = ax.images[0].get_size()
    wide, high = box.width / columns * 72 / page.dpi, box.height / rows * 72 / page.dpi
    across, down = ax.get_xticklabels(), ax.get_yticklabels()
    size = float(down[0].get_fontsize())
    if box.width < 0.55 * page.get_size_inches()[0] * page.dpi:
        size = min(size, 5.5)
    names = [label.get_text() for label in down]
    if wide < 1.45 * size and names == [label.get_text() for label in across]:
        ax.set_yticks(range(rows), [f"{name}  {i + 1}" for i, name in enumerate(names)])
        turned = 90 if wide < 1.2 * size else 0
        ax.set_xticks(range(columns), [str(i + 1) for i in range(columns)], rotation=turned, ha="center")
        for label in ax.get_xticklabels():
            label.set_rotation_mode("default")
            label.set_fontsize(min(size, 0.95 * wide if turned else size))
    elif wide < 1.45 * size:
        for label in across:
            label.set_rotation(90)
            label.set(ha="right", va="center", rotation_mode="anchor")
            label.set_fontsize(max(min(size, 0.95 * wide), SMALLEST_NAME))
    if high < SMALLEST_NAME:
        ax.set_yticks([])
        ax.set_ylabel(f"{counted(rows, 'row')}, named in the figure's CSV")
    for label in ax.get_yticklabels():
        label.set_fontsize(min(size, 0.95 * high))
    texts = [text for text in ax.texts if text.get_gid() == "number"]
    room = min((0.84 * wide / (text.get_window_extent().width * 72 / page.dpi) for text in texts), default=0.0)
    new = min(5.0 * min(room, 1.0), 0.85 * high)
    legible = bool(texts) and new >= SMALLEST_NUMBER
    for text in texts:
        text.set_fontsize(max(new, 1.0))
        text.set_visible(legible)
    for marks in ax.collections:
        if marks.get_gid() == "negative" and isinstance(marks, PathCollection):
            marks.set_visible(not legible)
            marks.set_sizes([max(min(wide, high) * 0.35, 0.5) ** 2])
            if not legible:
                ax.set_title(f"{ax.get_title()} (–: below zero)")
