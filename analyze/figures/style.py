"""Colours, markers and sizes of every figure: colour is the model's group, marker its training source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

from cache_schema.format.records import UNKNOWN
from closerlook_common.errors import UserError, nearest

Marker: TypeAlias = Any
"""A marker of matplotlib: a letter, or (points, 1, turn) for a star. Its stubs list letters one by one."""
Dashes: TypeAlias = Any
"""A line style of matplotlib: ``-``, or (offset, (on, off, ...))."""

STYLE_FILE = Path(__file__).with_name("closerlook.mplstyle")

GROUP_COLOURS: Mapping[str, str] = {
    # Distinct with red-green and blue-yellow blindness, and by lightness alone in a grey print: L* 10, 35, 51 ... 85.
    "supervised-in1k": "#1C1C1C",
    "clip-zero-shot": "#0B529A",
    "more-data": "#0A8A70",
    "clip-ft-in1k": "#E2703A",
    "clip-ft-in12k": "#F2B340",
    "self-supervised": "#F0CBE6",
    UNKNOWN: "#9A9A9A",
}
"""Group of models -> colour."""

MARKER_EDGES: Mapping[str, str] = {"self-supervised": "#A57F9C"}
"""Group of models -> colour around its markers, where white would let a light one fade into the page."""

SOURCE_MARKERS: Mapping[str, Marker] = {
    "wit": "o",
    "laion-80m": "v",
    "laion-400m": "s",
    "laion-2b": "D",
    "laion-aesthetic": "P",
    "laion-5b": "X",
    "laion": "s",
    "datacomp": "h",
    "commonpool": "d",
    "metaclip": "p",
    "dfn": "*",
    "webli": (4, 1, 0),
    "imagenet-1k": "^",
    "train": "^",
    "imagenet-12k": ">",
    "imagenet-21k": "<",
    UNKNOWN: "o",
}
"""Training source, or the start of its name -> marker."""

SPARE_MARKERS: tuple[Marker, ...] = ("v", "d", "p", "X", "h", "P", "<", ">", "*", (4, 1, 0), (4, 1, 45))
"""Markers of sources that are not in the table; nearly round ones would pass for a dot in print."""

LINE_STYLES: Mapping[str, Dashes] = {
    "supervised-in1k": "-",
    "clip-zero-shot": (0, (5, 1.5)),
    "clip-ft-in1k": (0, (3, 1, 1, 1)),
    "clip-ft-in12k": (0, (1, 1)),
    "more-data": (0, (7, 2, 1, 2)),
    "self-supervised": (0, (2, 2)),
}
"""Group of models -> dashes of its fit."""

SERIES_COLOURS = ("#0B529A", "#E2703A", "#0A8A70", "#1C1C1C", "#B0569A", "#F2B340", "#7A7A7A", "#4DB3E6")
SERIES_DASHES: tuple[Dashes, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1)),
    (0, (7, 2, 1, 2)),
    (0, (2, 2)),
)
"""Looks of lines that stand for single models or sets."""

DIAGONAL: Mapping[str, Any] = {"color": "#777777", "linestyle": (0, (1.2, 1.6)), "linewidth": 0.9}
TPR_95: Mapping[str, Any] = {"color": "#777777", "linestyle": (0, (6, 2)), "linewidth": 0.5}
AFTER_LINE: Mapping[str, Any] = {
    "color": "#111111",
    "linewidth": 0.7,
    "marker": "o",
    "markersize": 2.3,
    "markerfacecolor": "white",
    "markeredgewidth": 0.7,
}
"""Guides that figures share with their legends."""

CONFERENCE_WIDTHS: Mapping[str, float] = {
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 6.75,
    "icml-column": 3.25,
    "cvpr": 6.875,
    "cvpr-column": 3.25,
    "eccv": 4.8,
    "acl": 6.3,
    "acl-column": 3.03,
    "aaai": 7.0,
    "aaai-column": 3.3,
    "tmlr": 6.5,
    "slide": 10.0,
}
"""Name -> width of the text or of a column in inches, of the venues' current style files."""


def width_in_inches(width: str | float) -> float:
    """Return the width of a figure: a venue's name, or a number of inches.

    Raises
    ------
    UserError
        An unknown venue, or a width outside 1 to 40 inches.
    """
    if isinstance(width, str) and width in CONFERENCE_WIDTHS:
        return CONFERENCE_WIDTHS[width]
    try:
        inches = float(width)
    except ValueError:
        raise UserError(
            f"no width {width!r}{nearest(str(width), CONFERENCE_WIDTHS)}"
            f" Give inches, or one of {', '.join(CONFERENCE_WIDTHS)}."
        ) from None
    if not 1 <= inches <= 40:
        raise UserError(f"a figure {inches:g} inches wide? Give between 1 and 40.")
    return inches


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with the project's style and nothing of the reader's, whose own settings come back afterwards."""
    from matplotlib import style

    with style.context(STYLE_FILE, after_reset=True):
        yield


def group_colour(group: str) -> str:
    """Return the colour of a group; grey where it is not known."""
    return GROUP_COLOURS.get(group, GROUP_COLOURS[UNKNOWN])


def source_markers(sources: Sequence[str]) -> dict[str, Marker]:
    """Return a marker for each source: the table's, by name, start or a part of the name, else one drawn by the name.

    A source has the same marker in every figure, whatever else is in it; two unknown sources may share one.
    """
    return {source: _marker(source) for source in sorted(set(sources))}


def _marker(source: str) -> Marker:
    known = [name for name in SOURCE_MARKERS if source == name or source.startswith(f"{name}-")]
    known = known or [name for name in SOURCE_MARKERS if name in source.split("-")]
    if known:
        return SOURCE_MARKERS[max(known, key=len)]
    return SPARE_MARKERS[crc32(source.encode()) % len(SPARE_MARKERS)]


def series_look(index: int) -> tuple[str, Dashes]:
    """Return colour and dashes of the index-th line of a figure; both run round, and meet again after 24 lines."""
    return SERIES_COLOURS[index % len(SERIES_COLOURS)], SERIES_DASHES[index % len(SERIES_DASHES)]
