"""Legend entries of groups, sources, series and guides: the same for every figure that shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyze.figures.style import (
    AFTER_LINE,
    DIAGONAL,
    LINE_STYLES,
    MARKER_EDGES,
    TPR_95,
    group_colour,
    series_look,
    source_markers,
)
from cache_schema.format.records import GROUPS

BINS = "accuracy in a bin of confidence"


def group_handles(groups: Sequence[str], lines: Collection[str] = ()) -> list[Line2D]:
    """Return legend entries of groups, in the study's order: coloured dots, on the dashes of those that have lines."""
    order = [group for group in GROUPS if group in groups] + sorted(set(groups) - set(GROUPS))
    return [
        Line2D(
            [],
            [],
            color=group_colour(group),
            linestyle=LINE_STYLES.get(group, "-") if group in lines else "",
            linewidth=1.0,
            marker="o",
            markersize=4.5,
            markeredgecolor=MARKER_EDGES.get(group, "white"),
            markeredgewidth=0.4,
            label=GROUPS.get(group, group),
        )
        for group in order
    ]


def source_handles(sources: Sequence[str]) -> list[Line2D]:
    """Return legend entries of training sources: grey markers."""
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


def key_handles(gids: Iterable[str]) -> list[Artist]:
    """Return legend entries of what else is drawn, by the ``gid`` of the artists that draw it."""
    keys: dict[str, Artist] = {
        "before": Line2D([], [], color="#555555", linestyle="", marker="o", markersize=3.2, label=BINS),
        "after": Line2D([], [], **AFTER_LINE, label="after temperature scaling"),
        "histogram": Patch(facecolor="#555555", alpha=0.55, label="share of images"),
        "band": Patch(facecolor="#555555", alpha=0.2, label="95 % interval of the fit"),
        "diagonal": Line2D([], [], **DIAGONAL, label="y = x"),
        "tpr-95": Line2D([], [], **TPR_95, label="95 % of ID accepted"),
        "median": Line2D([], [], color="#111111", linewidth=1.2, label="median"),
        "critical-difference": Patch(facecolor="#EFEFEF", label="not distinguished from the best (Nemenyi, 5 %)"),
        "rank-interval": Line2D([], [], color="#555555", linewidth=0.8, label="interval of the average rank, 95 %"),
        "marked": Line2D(
            [],
            [],
            color="#B00020",
            linestyle="",
            marker="x",
            markersize=4,
            label="not in the lines: at chance, or the set was built against it",
        ),
    }
    found = set(gids)
    return [handle for gid, handle in keys.items() if gid in found]


def series_handles(names: Sequence[str], *, filled: Collection[str] = ()) -> list[Artist]:
    """Return legend entries of lines that have no group: the looks of ``series_look`` in order, filled for some."""
    handles: list[Artist] = []
    for index, name in enumerate(names):
        colour, dashes = series_look(index)
        handles.append(
            Patch(facecolor=colour, alpha=0.35, label=name)
            if name in filled
            else Line2D([], [], color=colour, linestyle=dashes, label=name)
        )
    return handles
