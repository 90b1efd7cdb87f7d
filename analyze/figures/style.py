"""Colours, markers and sizes of every figure: colour is the model's group, marker its training source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from cache_schema.errors import UserError, nearest
from cache_schema.records import GROUPS, UNKNOWN

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

STYLE_FILE = Path(__file__).with_name("closerlook.mplstyle")

GROUP_COLOURS: Mapping[str, str] = {
    # Told apart with red-green and blue-yellow blindness, and by lightness alone in a grey print.
    "supervised-in1k": "#222222",
    "clip-zero-shot": "#0B5FA5",
    "more-data": "#008C72",
    "clip-ft-in1k": "#D9622B",
    "clip-ft-in12k": "#EFA931",
    "contrastive": "#EBB5DA",
    UNKNOWN: "#9A9A9A",
}
"""Group of models -> colour."""

SOURCE_MARKERS: Mapping[str, str] = {
    "wit": "o",
    "laion-80m": "v",
    "laion-400m": "s",
    "laion-2b": "D",
    "laion-aesthetic": "P",
    "laion-5b": "X",
    "laion": "s",
    "datacomp": "h",
    "commonpool": "H",
    "metaclip": "p",
    "dfn": "*",
    "webli": "8",
    "imagenet-1k": "^",
    "imagenet-12k": ">",
    "imagenet-21k": "<",
    UNKNOWN: "o",
}
"""Training source, or the start of its name -> marker."""

SPARE_MARKERS = ("v", "d", "p", "X", "^", "h", "8", "P", "<", ">")
"""Markers of sources that are not in the table."""

LINE_STYLES: Mapping[str, str | tuple[int, tuple[float, ...]]] = {
    "supervised-in1k": "-",
    "clip-zero-shot": (0, (5, 1.5)),
    "clip-ft-in1k": (0, (3, 1, 1, 1)),
    "clip-ft-in12k": (0, (1, 1)),
    "more-data": (0, (7, 2, 1, 2)),
    "contrastive": (0, (2, 2)),
}
"""Group of models -> dashes of its fit."""

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
    """Draw with the project's style; the reader's own settings come back afterwards."""
    import matplotlib as mpl
    from matplotlib import font_manager, style

    with mpl.rc_context(), style.context(STYLE_FILE):
        installed = {font.name for font in font_manager.fontManager.ttflist}
        mpl.rcParams["font.sans-serif"] = [f for f in mpl.rcParams["font.sans-serif"] if f in installed]
        yield


def group_colour(group: str) -> str:
    """Return the colour of a group; grey where it is not known."""
    return GROUP_COLOURS.get(group, GROUP_COLOURS[UNKNOWN])


def source_markers(sources: Sequence[str]) -> dict[str, str]:
    """Return a marker for each source: the table's, by name, start or a part of the name, else one drawn by the name.

    A source has the same marker in every figure, whatever else is in it; two unknown sources may share one.
    """
    return {source: _marker(source) for source in sorted(set(sources))}


def _marker(source: str) -> str:
    known = [name for name in SOURCE_MARKERS if source == name or source.startswith(f"{name}-")]
    known = known or [name for name in SOURCE_MARKERS if name in source.split("-")]
    if known:
        return SOURCE_MARKERS[max(known, key=len)]
    return SPARE_MARKERS[crc32(source.encode()) % len(SPARE_MARKERS)]


def group_handles(groups: Sequence[str]) -> list[Line2D]:
    """Return legend entries of groups, in the study's order: coloured dots."""
    from matplotlib.lines import Line2D

    order = [group for group in GROUPS if group in groups] + sorted(set(groups) - set(GROUPS))
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=4.5,
            markerfacecolor=group_colour(group),
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=GROUPS.get(group, group),
        )
        for group in order
    ]


def source_handles(sources: Sequence[str]) -> list[Line2D]:
    """Return legend entries of training sources: grey markers."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            markersize=4.2,
            markerfacecolor="none",
            markeredgecolor="#555555",
            markeredgewidth=0.8,
            label=source,
        )
        for source, marker in sorted(source_markers(sources).items())
    ]
