"""Composes panels to a page at a conference's width, and saves each figure with its numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from analyze.figures import FIGURES, FigureSpec
from analyze.figures.fitting import fit_cells, fit_titles
from analyze.figures.labels import settle_labels
from analyze.figures.style import figure_style, width_in_inches
from analyze.figures.text import cut, make_drawable
from analyze.figures.ticks import measure_ticks
from analyze.results.csv_text import write_csv
from closerlook_common.errors import UserError, nearest
from closerlook_common.user_cache import replaced_whole

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = Literal["outside upper center", "outside lower center"]
FORMATS = ("pdf", "svg", "png")
MAX_HEIGHT = 11.0
MAX_PANEL_HEIGHT = 2.3
LEGEND_SIZE = 6.0
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
        raise UserError(f"no figure {name!r}{nearest(name, FIGURES, list_all=True)}")
    return FIGURES[name]


def functions(name: str) -> tuple[Callable[..., pl.DataFrame], Callable[[pl.DataFrame, Axes], Axes]]:
    """Return the prepare and the draw function of a figure."""
    spec = figure_spec(name)
    if spec.functions is not None:
        return spec.functions
    module = import_module(f"analyze.figures.{spec.module}")
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

    from analyze.figures.page import Page

    spec = figure_spec(name)
    draw = functions(name)[1]
    inches = width_in_inches(width)
    rows = layout(data, spec, inches)
    columns = max(map(len, rows))
    height = min(len(rows) * panel_height(data, spec, inches / columns), MAX_HEIGHT * max(1, len(rows) / 6))
    with figure_style():
        page = Page(figsize=(inches, height))
        FigureCanvasAgg(page)
        page.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)
        grid = page.subplots(len(rows), columns, squeeze=False)
        for row, axes in zip(rows, grid, strict=True):
            for index, ax in enumerate(axes):
                if index < len(row):
                    draw(data.filter(pl.col("panel") == row[index]), ax)
                    measure_ticks(ax)
                else:
                    ax.axis("off")
        tidy(grid, rows)
        gids = gids_of(page)
        make_drawable(page, grid)
        for handles, place in legends(data, spec, gids):
            rows_of_legend = add_legend(page, handles, place)
            height += 0.15 * rows_of_legend + 0.1
        page.set_size_inches(inches, height)
        settle(page, grid)
    return page


def layout(data: pl.DataFrame, spec: FigureSpec, inches: float) -> list[list[str]]:
    """Return the panels row by row: as many side by side as the page has room for, with few places left empty.

    Where the figure has a row for each name of the vertical axis (``columns`` 0), none is continued in another's row.
    """
    panels = data.select("panel", "y_title").unique("panel", maintain_order=True)
    parts = [panels["panel"].to_list()]
    if not spec.columns:
        parts = [part["panel"].to_list() for _, part in panels.group_by("y_title", maintain_order=True)]
    longest = max(map(len, parts))
    most = max(1, min(spec.columns or longest, longest, int(inches / spec.least + 1e-9)))
    columns = min(range(most, (most - 1) // 2, -1), key=lambda c: sum(-len(part) % c for part in parts))
    return [part[at : at + columns] for part in parts for at in range(0, len(part), columns)]


def panel_height(data: pl.DataFrame, spec: FigureSpec, width: float) -> float:
    """Return a panel's height in inches: its aspect, but heat maps and rank plots grow with their rows."""
    cells = data.filter(pl.col("kind") == "cell")
    if len(cells):
        return max(1.2 + 0.115 * cells["series"].n_unique(), 2.0)
    if spec.module == "ranks":
        return 0.6 + 0.105 * len(data.filter(pl.col("kind") == "point"))
    return min(max(width * spec.aspect, 1.15), MAX_PANEL_HEIGHT)


def tidy(grid: Any, rows: list[list[str]]) -> None:
    """Leave out axis names that the neighbour to the left or below says already."""
    for r, row in enumerate(rows):
        names = [grid[r, c].get_ylabel() for c in range(len(row))]
        for c in range(1, len(row)):
            if names[c] == names[0] != "":
                grid[r, c].set_ylabel("")
        for c in range(len(row)):
            below = [grid[k, c].get_xlabel() for k in range(r + 1, len(rows)) if c < len(rows[k])]
            if below and below[0] == grid[r, c].get_xlabel():
                grid[r, c].set_xlabel("")


def legends(data: pl.DataFrame, spec: FigureSpec, gids: set[str]) -> list[tuple[list[Artist], Place]]:
    """Return entries and place of the legends: groups above the panels; sources, series and guides below them."""
    from analyze.figures.legends import group_handles, key_handles, series_handles, source_handles

    above: list[Artist] = []
    below: list[Artist] = []
    if spec.legend == "groups":
        shown = data.filter(pl.col("kind").is_in(["point", "cell"]), pl.col("group") != "")
        lines = data.filter(pl.col("kind") == "line")
        above += group_handles(shown["group"].unique().to_list(), set(lines["group"]))
        below += source_handles(shown.filter(pl.col("kind") == "point")["source"].unique().to_list())
        above, below = (handles if len(handles) > 1 else [] for handles in (above, below))
    elif spec.legend == "series":
        names = data.unique("label").sort(pl.col("label").cast(pl.Int64))["series"].to_list()
        filled = data.filter(pl.col("kind") == "filled")["series"]
        below += series_handles(names, filled=set(filled))
    below += key_handles(gids)
    placed: tuple[tuple[list[Artist], Place], ...] = ((above, "outside upper center"), (below, "outside lower center"))
    return [(handles, place) for handles, place in placed if handles]


def add_legend(page: Figure, handles: list[Artist], place: Place) -> int:
    """Put a legend on the page in as many columns as it has room for; returns its rows."""
    for handle in handles:
        handle.set_label(cut(str(handle.get_label()), 72 * 0.8 * float(page.get_size_inches()[0]), LEGEND_SIZE))
    dashed = any(str(getattr(handle, "get_linestyle", str)()) not in ("", "None") for handle in handles)
    for columns in range(len(handles), 0, -1):
        rows = -(-len(handles) // columns)
        if -(-len(handles) // rows) < columns:
            continue
        legend = page.legend(handles=handles, loc=place, ncols=columns, handlelength=2.4 if dashed else 1.4)
        if columns == 1 or legend.get_window_extent().width <= page.bbox.width:
            return rows
        legend.remove()
    return 0


def gids_of(page: Figure) -> set[str]:
    """Return the names that the page's artists carry."""
    return {str(artist.get_gid()) for artist in page.findobj() if artist.get_gid()}


def settle(page: Figure, grid: Any) -> None:
    """Lay the page out, make its text fit the room that was left, and put names next to points."""
    page.canvas.draw()
    for fit in (fit_cells, fit_titles):
        if fit(page, grid):
            page.canvas.draw()
    page.set_layout_engine("none")
    for ax in grid.ravel():
        settle_labels(ax)


def save(
    name: str, data: pl.DataFrame, folder: Path, *, formats: Sequence[str], width: str | float = "neurips"
) -> list[Path]:
    """Draw a figure and write it in each format, with its numbers as ``NAME.csv`` next to it.

    Returns
    -------
    list of Path
        What was written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise UserError(f"no format {unknown[0]!r}{nearest(unknown[0], FORMATS, list_all=True)}")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / f"{name}.csv"
    write_csv(data, numbers)
    written = [numbers]
    page = compose(name, data, width=width)
    for suffix in formats:
        path = folder / f"{name}.{suffix}"
        with replaced_whole(path) as part:
            page.savefig(part, format=suffix, metadata=FIXED_METADATA[suffix])
        written.append(path)
    return written
