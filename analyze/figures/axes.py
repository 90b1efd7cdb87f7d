"""Drawing atoms: points with intervals, lines with bands, probit axes with ticks a reader knows, labels that
give way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

from analyze.figures.labels import INTERVAL, LABEL, settle_labels
from analyze.figures.style import DIAGONAL, LINE_STYLES, MARKER_EDGES, group_colour, source_markers
from analyze.figures.text import drawable
from analyze.figures.ticks import MeasuredSteps, MeasuredTicks, round_proportions, tick_at
from analyze.trends.scales import CLIP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Floats = NDArray[np.float64]


def set_scale(ax: Axes, axis: str, scale: str, values: Floats) -> None:
    """Put an axis (``x`` or ``y``) on a scale, with limits around the values and ticks at round numbers."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if scale in ("probit", "logit"):
        there, back = (ndtri, ndtr) if scale == "probit" else (logit, expit)

        def forward(
            v: Floats,
        ) -> Floats:
            return np.asarray(there(np.clip(v, CLIP, 1 - CLIP)))

        ends = forward(np.array([low, high]))
        pad = 0.06 * max(ends[1] - ends[0], 0.2)
        limits = back(ends + np.array([-pad, pad]))
        getattr(ax, f"set_{axis}scale")("function", functions=(forward, back))
        getattr(ax, f"set_{axis}lim")(*limits)
        tick_at(ax, axis, MeasuredTicks(round_proportions, 0.8 if axis == "x" else None))
    elif scale == "log":
        getattr(ax, f"set_{axis}scale")("log")
    else:
        # Around a single number, or several that differ by rounding alone, the axis spans a tenth of it each way.
        alone = np.isclose(low, high, rtol=1e-6, atol=1e-9)
        pad = 0.1 * abs(high) or 0.1 if alone else 0.06 * (high - low)
        getattr(ax, f"set_{axis}lim")(low - pad, high + pad)
        getattr(ax, f"{axis}axis").set_major_locator(MeasuredSteps())


def draw_points(data: pl.DataFrame, ax: Axes, *, intervals: bool = True, size: float = 16.0) -> None:
    """Draw the frame's points: colour by group, marker by source, intervals as thin crosses below them."""
    points = data.filter(pl.col("kind") == "point")
    markers = source_markers(points["source"].to_list())
    for (group, source), part in points.group_by("group", "source", maintain_order=True):
        colour = group_colour(str(group))
        x, y = part["x"].to_numpy(), part["y"].to_numpy()
        if intervals:
            for axis, other in (("y", "x"), ("x", "y")):
                low, high = part[f"{axis}_low"].to_numpy(), part[f"{axis}_high"].to_numpy()
                has = np.isfinite(low) & np.isfinite(high)
                draw = ax.vlines if axis == "y" else ax.hlines
                crosses = draw(
                    part[other].to_numpy()[has],
                    low[has],
                    high[has],
                    colors=colour,
                    linewidth=0.6,
                    alpha=0.45,
                    zorder=2,
                )
                crosses.set_gid(INTERVAL)
        collection = ax.scatter(
            x,
            y,
            s=size,
            c=colour,
            marker=markers[str(source)],
            edgecolors=MARKER_EDGES.get(str(group), "white"),
            linewidths=0.35,
            zorder=3,
        )
        collection.set_gid(f"points:{group}:{source}")
        if "mark" in part.columns and (part["mark"] != "").any():
            crossed = (part["mark"] != "").to_numpy()
            ax.scatter(x[crossed], y[crossed], s=size, c="#B00020", marker="x", linewidths=0.8, zorder=4, gid="marked")


def draw_lines(data: pl.DataFrame, ax: Axes, *, band: bool = True) -> None:
    """Draw the frame's lines with their bands, coloured and dashed by group."""
    for (series,), part in data.filter(pl.col("kind") == "line").group_by("series", maintain_order=True):
        group = str(part["group"][0])
        colour = group_colour(group)
        (line,) = ax.plot(part["x"], part["y"], color=colour, linestyle=LINE_STYLES.get(group, "-"), zorder=2.5)
        line.set_gid(f"line:{series}")
        if band and part["y_low"].is_not_null().all() and part["y_low"].is_not_nan().all():
            shade = ax.fill_between(part["x"], part["y_low"], part["y_high"], color=colour, alpha=0.12, linewidth=0)
            shade.set(zorder=1, gid="band")


def draw_diagonal(ax: Axes) -> None:
    """Draw y = x as a thin dashed line over the visible range, without changing it."""
    limits = ax.get_xlim(), ax.get_ylim()
    low, high = max(limits[0][0], limits[1][0]), min(limits[0][1], limits[1][1])
    if low < high:
        at = np.linspace(low, high, 60)
        ax.plot(at, at, **DIAGONAL, zorder=1.5, gid="diagonal")
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])


def draw_labels(data: pl.DataFrame, ax: Axes) -> None:
    """Name the points that carry a label."""
    named = data.filter((pl.col("kind") == "point") & (pl.col("label") != ""))
    for x, y, label in named.select("x", "y", "label").rows():
        note = ax.annotate(
            drawable(label),
            (x, y),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=5.5,
            color="#333333",
            zorder=4,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2},
        )
        note.set_gid(LABEL)
    if len(named):
        settle_labels(ax)


def _extent(points: pl.DataFrame, axis: str) -> Floats:
    """Return the points' range with their intervals, as far as these do not reach out by more than a quarter of it."""
    own: Floats = points[axis].to_numpy().astype(np.float64)
    own = own[np.isfinite(own)]
    if not len(own):
        return own
    spread = float(np.ptp(own)) or 1.0
    ends = points.select(pl.col(f"{axis}_low", f"{axis}_high").fill_nan(None)).to_numpy().astype(np.float64).ravel()
    ends = ends[np.isfinite(ends)]
    return np.concatenate([own, np.clip(ends, own.min() - 0.25 * spread, own.max() + 0.25 * spread)])


FEW = 6
"""Up to so many models without groups their points bear names: no legend distinguishes them."""


def _named_if_few(data: pl.DataFrame) -> pl.DataFrame:
    points = data.filter(pl.col("kind") == "point")
    if len(points) > FEW or (points["label"] != "").any() or set(points["group"]) != {"unknown"}:
        return data
    return data.with_columns(pl.when(pl.col("kind") == "point").then("model").otherwise("label").alias("label"))


def scatter(
    data: pl.DataFrame, ax: Axes, *, diagonal: bool = False, intervals: bool = True, title: str | None = None
) -> Axes:
    """Draw one panel of points and lines on the scales that the frame names.

    The title is the panel's name without what follows its last colon, unless another is given.
    """
    shown = data.filter(pl.col("kind") == "point")
    if shown.is_empty():
        return ax
    for axis in "xy":
        set_scale(ax, axis, data[f"{axis}_scale"][0], _extent(shown, axis) if intervals else shown[axis].to_numpy())
    draw_lines(data, ax)
    draw_points(data, ax, intervals=intervals, size=16.0 * float(np.clip(60 / len(shown), 0.4, 1)))
    for axis in "xy":
        ends = np.sort(np.asarray(getattr(ax, f"get_{axis}lim")()))
        getattr(ax, f"set_{axis}lim")(*ends)
    if diagonal:
        draw_diagonal(ax)
    draw_labels(_named_if_few(data), ax)
    ax.set_title(str(data["panel"][0]).rpartition(": ")[0] if title is None else title)
    ax.set_xlabel(data["x_title"][0])
    ax.set_ylabel(data["y_title"][0])
    return ax


def heat_cells(
    data: pl.DataFrame,
    ax: Axes,
    *,
    colours: str,
    limits: tuple[float, float],
    digits: int = 2,
    text_limit: int = 16,
) -> Axes:
    """Draw a frame of ``cell`` rows (``series`` down, ``label`` across, ``y`` the number) as a heat map.

    Numbers are written into the cells where there are at most ``text_limit`` columns.
    """
    rows: Sequence[str] = data["series"].unique(maintain_order=True).to_list()
    columns: Sequence[str] = data["label"].unique(maintain_order=True).to_list()
    matrix = np.full((len(rows), len(columns)), np.nan)
    at_row, at_column = ({name: i for i, name in enumerate(names)} for names in (rows, columns))
    for row, column, value in data.select("series", "label", "y").rows():
        matrix[at_row[row], at_column[column]] = np.nan if value is None else value
    image = ax.imshow(matrix, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    image.set_gid("cells")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    numbered = len(columns) <= text_limit and len(rows) <= 3 * text_limit
    for i, j in np.argwhere(np.isfinite(matrix)) if numbered else ():
        ax.text(
            j,
            i,
            f"{round(matrix[i, j], digits) + 0.0:.{digits}f}",
            ha="center",
            va="center",
            fontsize=5,
            color=_ink(image, matrix[i, j]),
            gid="number",
        )
    below = np.argwhere(matrix < 0) if limits[0] < 0 else np.empty((0, 2), dtype=int)
    if len(below):
        # A grey print shows both ends of a diverging map dark: where no number says which, a dash does.
        inks = [_ink(image, matrix[i, j]) for i, j in below]
        dashes = ax.scatter(below[:, 1], below[:, 0], marker="_", s=9, c=inks, linewidths=0.5, zorder=3)
        dashes.set_gid("negative")
        dashes.set_visible(not numbered)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return ax


def _ink(image: AxesImage, value: float) -> str:
    """Return the colour of writing that can be read on a cell."""
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "#222222"
