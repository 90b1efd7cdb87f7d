"""Trends over models as printable tables: correlations, medians of effective robustness, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import polars as pl

from analyze.trends.correlations import TITLES
from closerlook_common.console.messages import with_flags
from closerlook_common.console.terminal import as_text, plain_table, printable

if TYPE_CHECKING:
    from rich.table import Table

MOST = 24
"""Quantities that are printed; where there are more, the ones that go closest with x."""
PLAIN_TABLES: Mapping[str, str] = {
    "relative_robustness": "relative robustness (accuracy that the intervention gains)",
    "agreement_lines": "accuracy and agreement on the line (least squares on probit axes)",
}
_METHODS = ("pearson", "spearman", "kendall")


def strongest(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the rows of a table of correlations to print, and how many quantities they leave out.

    Quantities that are tied to x by construction are never among the strongest.
    """
    names = table["y"].unique(maintain_order=True)
    if len(names) <= MOST:
        return table, 0
    everyone = table.filter(pl.col("among") == "all", pl.col("tied") == "")
    ranked = everyone.filter(pl.col("method") == "spearman", pl.col("value").is_not_nan())
    best = ranked.sort(pl.col("value").abs(), descending=True, maintain_order=True)["y"].head(MOST).to_list()
    place = {name: rank for rank, name in enumerate(best)}
    kept = everyone.filter(pl.col("y").is_in(best))
    order = pl.col("y").replace_strict(place, return_dtype=pl.Int64)
    return kept.sort(order, maintain_order=True), len(names) - len(best)


def correlation_tables(table: pl.DataFrame, *, width: int = 80) -> Iterator[Table]:
    """Yield a printable table for each x: quantities down, coefficients with intervals across.

    Parameters
    ----------
    table
        ``correlations`` of ``analyze.trends.over_models.trend_tables``.
    width
        Characters of a line: a wide one has room for more coefficients, and for p-values.
    """
    for (x,), whole in table.group_by("x", maintain_order=True):
        part, hidden = strongest(whole)
        drawn = plain_table(f"against {x}")
        drawn.add_column("", overflow="fold", min_width=24)
        drawn.add_column("models", justify="right")
        shown = _METHODS[: 3 if width >= 150 else 1 + (width >= 110)]
        for method in shown:
            drawn.add_column(TITLES[method], justify="right", no_wrap=True)
        if width >= 90:
            drawn.add_column("p (Holm)", justify="right", no_wrap=True)
        for (y, among), cells in part.group_by("y", "among", maintain_order=True):
            row = {str(cell["method"]): cell for cell in cells.iter_rows(named=True)}
            name = f"{y}{' *' if cells['axis'][0] == 'same classes' else ''}{' =' if cells['tied'][0] else ''}"
            numbers = [as_text(name if among == "all" else f"  {among}", style="" if among == "all" else "dim")]
            numbers.append(as_text(_models(cells)))
            numbers += [as_text(_coefficient(row[m]["value"], row[m]["low"], row[m]["high"])) for m in shown]
            if width >= 90:
                numbers.append(as_text(_p_value(row[shown[0]]["p_holm"])))
            drawn.add_row(*numbers)
        drawn.caption = as_text(with_flags(" ".join(_footnotes(part, hidden))))
        drawn.caption_justify = "left"
        yield drawn


def _models(cells: pl.DataFrame) -> str:
    n, families = cells["n"][0], cells["families"][0]
    return str(n) if families == n else f"{n} in {families}"


def _coefficient(value: float, low: float, high: float) -> str:
    if value != value:
        return "–"
    return f"{value:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if low == low else " [–]")


def _p_value(p: float | None) -> str:
    return "–" if p is None or p != p else "<.001" if p < 0.001 else f"{p:.3f}"


def _footnotes(part: pl.DataFrame, hidden: int) -> Iterator[str]:
    if (part["families"] < part["n"]).any():
        yield "Models: 'n in f' are n models in f families; intervals and p-values allow for that."
    if (part["axis"] == "same classes").any():
        yield "*: x is the accuracy on the same classes."
    if (part["tied"] != "").any():
        yield "=: tied to x by construction, not tested."
    if part["low"].is_nan().any():
        yield "[–]: no interval, correlations.csv says why."
    if hidden:
        where = "all groups are in correlations.csv (give `output`); name some with `y`."
        yield f"{hidden} weaker or tied ones and {where}"
    if "tests" in part.columns:
        yield f"{part['tests'][0]:,} tests were made; p is after Holm's correction for them."


def medians_tables(table: pl.DataFrame, by: str = "group", *, width: int = 80) -> Iterator[Table]:
    """Yield the median effective robustness of each group as printable tables, with n and interval.

    Parameters
    ----------
    table
        ``robustness_medians`` of ``analyze.trends.over_models.trend_tables``.
    by
        The column of groups.
    width
        Characters of a line; groups that do not fit go on in a further table.
    """
    from rich.text import Text

    groups = table[by].unique(maintain_order=True).to_list()
    at_once = max((width - 20) // 17, 1)
    several = table.filter(pl.col("factor") != "")["dataset"].n_unique() > 1
    pieces = [groups[at : at + at_once] for at in range(0, len(groups), at_once)]
    for piece in pieces:
        title = "median effective robustness (accuracy above the baseline's line)" if piece is pieces[0] else ""
        drawn = plain_table(title)
        drawn.add_column("", overflow="fold", min_width=16)
        for group in piece:
            drawn.add_column(Text("\n".join(map(printable, group.split("-")))), justify="right", no_wrap=True)
        for (dataset, factor), part in table.group_by("dataset", "factor", maintain_order=True):
            cells = {row[by]: row for row in part.iter_rows(named=True)}
            name = f"{dataset}: {factor}" if factor and several else str(factor or dataset)
            name += {"same classes": " *", "all classes": " (all classes)"}.get(part["axis"][0], "")
            drawn.add_row(as_text(name), *(Text(_median(cells.get(group))) for group in piece))
        if piece is pieces[-1]:
            drawn.caption = as_text(" ".join(_on_medians(table)))
            drawn.caption_justify = "left"
        yield drawn


def _on_medians(table: pl.DataFrame) -> Iterator[str]:
    yield "Each with (models) and its 95 % interval over families of models."
    if (table["axis"] == "same classes").any():
        yield "*: against the accuracy on the same classes."
    if (table["axis"] == "other images").any():
        yield "Factors: against the accuracy on the images without the factor."
    if table["low"].is_null().any():
        yield "[–]: no interval, robustness_medians.csv says why."


def _median(row: dict[str, float] | None) -> str:
    if row is None:
        return "–"
    ends = "[–]" if row["low"] is None else f"[{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['value']:+.3f} ({row['n']})\n{ends}"


def plain(table: pl.DataFrame, title: str) -> Table:
    """Return any table of numbers and words as it is."""
    drawn = plain_table(title)
    for name, kind in table.schema.items():
        drawn.add_column(name.replace("_", " "), justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in table.rows():
        drawn.add_row(*(as_text(f"{v:.3f}" if isinstance(v, float) else "–" if v is None else str(v)) for v in row))
    return drawn


def left_out_lines(table: pl.DataFrame) -> Iterator[str]:
    """Yield a line for each reason why models are left out of fits: who, and where if not everywhere.

    Parameters
    ----------
    table
        ``marked_models`` of ``analyze.trends.over_models.trend_tables``.
    """
    out = table.filter(pl.col("fits") == "left out")
    for (why,), part in out.group_by("why", maintain_order=True):
        models = part["model"].unique(maintain_order=True).to_list()
        places = part["y"].unique(maintain_order=True).to_list()
        shown = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
        where = "" if len(places) > 3 else f" ({', '.join(places)})"
        yield f"left out of fits: {shown}{where}: {why}"
