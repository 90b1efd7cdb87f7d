"""Names as text in figures: what the font cannot draw is shown as an escape, what is too long is cut in the middle."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator

from closerlook_common.console.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 48
"""Characters of a line; a figure's CSV has the whole name."""
SHORTEST = 8
LONGEST_BELOW = 110.0
"""Typographic points of a name below an axis, where names are turned."""
SHARE_OF_NAMES = 0.4
"""Share of a panel's width that names next to it may take."""
TAIL = 16
"""Characters kept of the end of a longer one."""


@cache
def _letters() -> frozenset[int]:
    """Return the characters that the font of all figures has."""
    return frozenset(get_font(findfont(FontProperties(family=["DejaVu Sans"]))).get_charmap())


def drawable(text: str) -> str:
    r"""Return one line of text as it can be drawn: with escapes (``\u4e2d``), and without its middle if it is long."""
    line = printable(" ".join(text.split()))
    line = "".join(c if ord(c) in _letters() else c.encode("unicode_escape").decode("ascii") for c in line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - TAIL - 1]}…{line[-TAIL:]}"


def cut(text: str, room: float, size: float) -> str:
    """Return one line of text as it can be drawn, in so many typographic points of room at a font size."""
    font = FontProperties(family=["DejaVu Sans"], size=size)
    line = drawable(text)
    keep = len(line)
    while keep > SHORTEST and text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] > room:
        keep = max(SHORTEST, keep * 9 // 10)
        tail = keep // 3
        whole = drawable(text).replace("…", "")
        line = f"{whole[: keep - tail - 1]}…{whole[-tail:]}"
    return line


def make_drawable(page: Figure, grid: Any) -> None:
    """Replace every text of a page by what can be drawn of it, and every artist's name by one that a file can hold."""
    width, height = (72 * float(inches) for inches in page.get_size_inches())
    rows, columns = grid.shape
    # Titles and axis names are made smaller later, by a third at most.
    across, upright = 1.4 * width / columns, 1.4 * height / rows
    for ax in page.axes:
        for axis, room in ((ax.xaxis, LONGEST_BELOW), (ax.yaxis, SHARE_OF_NAMES * width / columns)):
            if isinstance(axis.get_major_locator(), FixedLocator):
                labels = axis.get_ticklabels()
                axis.set_ticklabels([cut(label.get_text(), room, float(label.get_fontsize())) for label in labels])
        # A title may have two lines: a model above a dataset.
        if ax.get_title():
            lines = ax.get_title().rsplit("\n", 1)
            ax.set_title("\n".join(cut(line, across, float(ax.title.get_fontsize())) for line in lines))
        for label, room in ((ax.xaxis.label, across), (ax.yaxis.label, upright)):
            label.set_text(cut(label.get_text(), room, float(label.get_fontsize())))
        for text in ax.texts:
            text.set_text(drawable(text.get_text()))
    for artist in page.findobj():
        if artist.get_gid():
            artist.set_gid(printable(artist.get_gid()))
