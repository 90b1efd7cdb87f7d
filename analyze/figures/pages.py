"""Composes panels to a page at a conference's width, and saves each figure with its numbers beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.figures import FIGURES, FigureSpec
from analyze.figures.labels import settle_labels
from analyze.figures.style import figure_style, group_handles, source_handles, width_in_inches
from cache_schema.errors import UserError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FORMATS = ("pdf", "svg", "png")
MAX_HEIGHT = 11.0
MAX_PANEL_HEIGHT = 2.3
FIXED_METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
    "png": {},
}
"""What would make two runs differ is left out of the files."""


def figure_spec(name: str) -> FigureSpec:
    """Return a figure by name.

    Raises
    ------
    UserError
        An unknown name, answered with the nearest.
    """
    if name not in FIGURES:
        raise UserError(f"no figure {name!r}{nearest(name, FIGURES)} Figures are {', '.join(FIGURES)}.")
    return FIGURES[name]


def functions(name: str) -> tuple[Callable[..., pl.DataFrame], Callable[[pl.DataFrame, Axes], Axes]]:
    """Return the prepare and the draw function of a figure."""
    module = import_module(f"analyze.figures.{figure_spec(name).module}")
    return getattr(module, f"prepare_{name}"), getattr(module, f"draw_{name}")


def prepare(name: str, table: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """Return a figure's numbers from a result table (or from ``curves``, for those of single models)."""
    return functions(name)[0](table, **options)


def compose(name: str, data: pl.DataFrame, *, width: str | float = "neurips") -> Figure:
    """Draw a figure's panels on one page.

    Parameters
    ----------
    name
        One of ``FIGURES``.
    data
        Its numbers, of ``prepare``.
    width
        A venue's name or inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    spec = figure_spec(name)
    draw = functions(name)[1]
    panels = data["panel"].unique(maintain_order=True).to_list()
    inches = width_in_inches(width)
    columns = min(spec.columns or len(panels), len(panels))
    while columns > 1 and inches / columns < spec.least:
        columns = -(-columns // 2)
    rows = -(-len(panels) // columns)
    height = panel_height(data, spec, inches / columns)
    with figure_style():
        legends = legend_rows(data, inches) if spec.legend else ()
        over = sum(0.15 * -(-len(handles) // ncols) + 0.12 for handles, ncols, _ in legends)
        page = Figure(figsize=(inches, min(rows * height, MAX_HEIGHT * max(1, rows / 6)) + over))
        FigureCanvasAgg(page)
        page.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)
        grid = page.subplots(rows, columns, squeeze=False)
        for index, ax in enumerate(grid.ravel()):
            if index >= len(panels):
                ax.axis("off")
                continue
            draw(data.filter(pl.col("panel") == panels[index]), ax)
            tidy(ax, index, columns, len(panels), grid)
        for handles, ncols, place in legends:
            page.legend(handles=handles, loc=place, ncols=ncols)
        page.canvas.draw()
        page.set_layout_engine("none")
        for ax in grid.ravel():
            settle_labels(ax)
    return page


def panel_height(data: pl.DataFrame, spec: FigureSpec, width: float) -> float:
    """Return a panel's height in inches: its aspect, but heat maps and rank plots grow with their rows."""
    cells = data.filter(pl.col("kind") == "cell")
    if len(cells):
        return max(1.2 + 0.115 * cells["series"].n_unique(), 2.0)
    if spec.module == "ranks":
        return 0.6 + 0.105 * len(data.filter(pl.col("kind") == "point"))
    return min(max(width * spec.aspect, 1.15), MAX_PANEL_HEIGHT)


def tidy(ax: Axes, index: int, columns: int, n: int, grid: Any) -> None:
    """Leave out axis names that the neighbour to the left or below says already."""
    row, column = divmod(index, columns)
    if (column and grid[row, column - 1].get_ylabel() == ax.get_ylabel() != "") or (
        column and row * columns < n and grid[row, 0].get_ylabel() == ax.get_ylabel() != ""
    ):
        ax.set_ylabel("")
    if row and grid[row - 1, column].get_xlabel() == ax.get_xlabel():
        grid[row - 1, column].set_xlabel("")


def legend_rows(data: pl.DataFrame, inches: float) -> list[tuple[list[Line2D], int, Any]]:
    """Return the legends: colours above the panels, markers below them, each with as many columns as fit."""
    points = data.filter(pl.col("kind") == "point")
    found: list[tuple[list[Line2D], int, Any]] = []
    for handles, place in (
        (group_handles(points["group"].unique().to_list()), "outside upper center"),
        (source_handles(points["source"].unique().to_list()), "outside lower center"),
    ):
        if len(handles) > 1:
            longest = max(len(str(handle.get_label())) for handle in handles)
            fitting = max(1, int(inches / (0.045 * longest + 0.3)))
            found.append((handles, min(fitting, len(handles)), place))
    return found


def save(
    name: str, data: pl.DataFrame, folder: Path, *, formats: Sequence[str], width: str | float = "neurips"
) -> list[Path]:
    """Draw a figure and write it in each format, with its numbers as ``NAME.csv`` beside it.

    Returns
    -------
    list of Path
        What was written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise UserError(f"no format {unknown[0]!r}{nearest(unknown[0], FORMATS)} Formats are {', '.join(FORMATS)}.")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / f"{name}.csv"
    data.write_csv(numbers)
    written = [numbers]
    page = compose(name, data, width=width)
    with figure_style():
        for suffix in formats:
            path = folder / f"{name}.{suffix}"
            page.savefig(path, metadata=FIXED_METADATA[suffix])
            written.append(path)
    return written
