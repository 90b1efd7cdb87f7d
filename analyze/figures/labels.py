"""Names next to points that cover no point and no other name: the nearest free place around each point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

LABEL = "label"
"""``gid`` of the annotations that may be moved."""
INTERVAL = "interval"
"""``gid`` of the lines that names keep clear of where they can."""

DISTANCES = (2.0, 5.0, 9.0, 14.0, 20.0, 28.0, 38.0)
"""Tried distances between a point and its name, in typographic points."""
ANGLES = np.deg2rad([20, 160, -20, -160, 60, 120, -60, -120, 90, -90, 0, 180])
MARKER = 2.6
"""Half the size of a marker that names keep clear of, in typographic points."""

Box = tuple[float, float, float, float]


def settle_labels(ax: Axes) -> None:
    """Move the names of an Axes to free places, as they are laid out now; call again when the layout changes.

    A name that finds no free place is taken away: the figure's CSV still has it.
    """
    from matplotlib.text import Annotation

    notes = [text for text in ax.texts if isinstance(text, Annotation) and text.get_gid() == LABEL]
    if not notes:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection

    scale = ax.figure.dpi / 72  # pixels of one typographic point
    canvas = ax.figure.canvas
    agg = canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(ax.get_figure(root=True))
    renderer = agg.get_renderer()  # type: ignore[no-untyped-call]
    frame = ax.get_window_extent()
    taken: list[Box] = []
    for collection in ax.collections:
        if str(collection.get_gid()).startswith("points:"):
            for x, y in ax.transData.transform(np.asarray(collection.get_offsets())):
                reach = MARKER * scale
                taken.append((x - reach, y - reach, x + reach, y + reach))
    whiskers = [c for c in ax.collections if c.get_gid() == INTERVAL and isinstance(c, LineCollection)]
    crosses = [_box(ax, ends) for lines in whiskers for ends in lines.get_segments()]
    for note in notes:
        note.set_visible(True)
        at_x, at_y = (float(v) for v in ax.transData.transform(note.xy))
        at = (at_x, at_y)
        width, height = _text_extent(note, renderer)
        inside = (frame.x0, frame.y0, frame.x1, frame.y1)
        place = _free_place(at, width, height, scale, taken + crosses, inside)
        place = place or _free_place(at, width, height, scale, taken, inside)
        if place is None:
            note.set_visible(False)
            continue
        left, low = place
        note.set_horizontalalignment("left")
        note.set_verticalalignment("bottom")
        note.set_position(((left - at[0]) / scale, (low - at[1]) / scale))
        gap_x = max(left - at_x, 0.0, at_x - left - width)
        gap_y = max(low - at_y, 0.0, at_y - low - height)
        near = np.hypot(gap_x, gap_y) < 5 * scale
        if note.arrow_patch is not None:
            note.arrow_patch.set_visible(not near)
        taken.append((left, low, left + width, low + height))


def _box(ax: Axes, ends: np.ndarray[Any, Any]) -> Box:
    """Return the box around a line's two ends, in pixels; a line that is upright or level gets some width."""
    (x0, y0), (x1, y1) = ax.transData.transform(ends)
    return min(x0, x1) - 0.5, min(y0, y1) - 0.5, max(x0, x1) + 0.5, max(y0, y1) + 0.5


def _text_extent(note: Annotation, renderer: object) -> tuple[float, float]:
    from matplotlib.text import Text

    box = Text.get_window_extent(note, renderer)  # type: ignore[arg-type]
    return float(box.width), float(box.height)


def _free_place(
    at: tuple[float, float], width: float, height: float, scale: float, taken: list[Box], frame: Box
) -> tuple[float, float] | None:
    """Return the lower left corner of the nearest place that is inside the frame and free."""
    for distance in DISTANCES:
        for angle in ANGLES:
            across, up = float(np.cos(angle)), float(np.sin(angle))
            x = at[0] + across * (distance * scale + MARKER * scale)
            y = at[1] + up * (distance * scale + MARKER * scale)
            left = x - width / 2 + np.clip(across * 1.5, -1, 1) * width / 2
            low = y - height / 2 + np.clip(up, -1, 1) * height / 2
            box = (left, low, left + width, low + height)
            inside = box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not any(overlap(box, other) for other in taken):
                return left, low
    return None


def overlap(a: Box, b: Box) -> bool:
    """Return whether two boxes share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
