"""A result table turned into the table of a paper: rows by columns, best marks, intervals, groups of rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import cache_schema
from analyze.results import CARD_COLUMNS
from analyze.results.selection import NAME_COLUMNS, check_column, varying
from analyze.results.titles import in_percent, score_title
from analyze.tables.cells import Cell, Column
from analyze.tables.marks import AS_GOOD, PairedMarks, marked, paired_marks, share_the_first
from analyze.tables.notes import Note, notes_on
from analyze.tables.reading_order import ORDER, in_reading_order
from analyze.tables.variants import MEAN, column_title, headed, variant_words
from cache_schema.format.records import GROUPS
from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


@dataclass(frozen=True)
class Table:
    """A page: rows by columns.

    Attributes
    ----------
    page
        What is the same for the whole page (``{"dataset": "imagenet-val"}``).
    row_names
        The columns whose values label the rows.
    rows
        Labels of each row.
    groups
        Group of each row; empty strings where rows are not grouped.
    columns
        The columns, in order.
    cells
        ``cells[row][column]``.
    digits
        Decimals; None chooses three (one for percent).
    intervals
        Whether intervals are shown.
    reasons
        Why values are missing, and how many for each reason.
    notes
        What a reader must know to compare the numbers of one column (rows with different scores, say).
    """

    page: dict[str, str]
    row_names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    digits: int | None = None
    intervals: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def shown(self, cell: Cell, column: Column) -> str:
        """Return the text of a cell without marks."""
        if cell.value is None or math.isnan(cell.value):
            return "–"
        text = _number(cell.value, column, self.digits)
        if self.intervals and cell.low is not None and cell.high is not None:
            text += f" [{_number(cell.low, column, self.digits)}, {_number(cell.high, column, self.digits)}]"
        return text

    def to_frame(self) -> pl.DataFrame:
        """Return the page as a wide frame with numbers at full precision."""
        data: dict[str, list[Any]] = {name: [row[i] for row in self.rows] for i, name in enumerate(self.row_names)}
        if any(self.groups):
            data["group"] = list(self.groups)
        for index, column in enumerate(self.columns):
            data[column.name] = [row[index].value for row in self.cells]
            if self.intervals:
                data[f"{column.name} low"] = [row[index].low for row in self.cells]
                data[f"{column.name} high"] = [row[index].high for row in self.cells]
        schema = {name: pl.String() if name in (*self.row_names, "group") else pl.Float64() for name in data}
        return pl.DataFrame(data, schema=schema)


def _number(value: float, column: Column, digits: int | None) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    scaled = value * 100 if column.percent else value
    decimals = (1 if column.percent else 3) if digits is None else digits
    text = f"{scaled:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def split_names(words: str, what: str) -> list[str]:
    """Read a comma-separated list of the table's columns."""
    named = [word.strip() for word in words.split(",") if word.strip()]
    if not named:
        raise UserError(f"{what} needs at least one column, for example 'model'")
    return [check_column(name, (*NAME_COLUMNS, *CARD_COLUMNS[4:7])) for name in named]


def build_tables(
    results: pl.DataFrame,
    *,
    rows: Sequence[str] = ("model",),
    columns: Sequence[str] = ("metric",),
    best: bool = False,
    intervals: bool = False,
    group_rows: str = "",
    digits: int | None = None,
    percent: bool = False,
    sort: str = "",
    cache: Cache | str | Path | None = None,
) -> list[Table]:
    """Turn a result table into pages of rows by columns.

    Parameters
    ----------
    results
        A result table, already restricted to the rows of interest.
    rows, columns
        Columns of the result table that label rows and columns.
    best
        Mark the best of each column by the metric's direction with all that cannot be distinguished from it, and the
        next best; equal values share a mark. Intervals decide, or with a cache paired tests.
    intervals
        Show ``[low, high]`` behind the numbers.
    group_rows
        Column (``group``, ``source`` ...) whose values head blocks of rows; empty for none.
    digits
        Decimals; None: three, or one in percent.
    percent
        Show metrics that are fractions (accuracy, ECE, AUROC ...) times 100.
    sort
        Name of a column (as printed) by which rows are sorted, best first.
    cache
        With ``best``: where the predictions lie that the numbers are of. Models are then compared by paired tests on
        the same images, where there is a test of the metric; the notes say which columns.

    Returns
    -------
    list of Table
        One page for each combination of model, dataset and metric that neither rows nor columns distinguish.
        Variants (score, calibrator, prompt set ...) that differ within a cell become columns of their own.

    Raises
    ------
    UserError
        Where a column does not exist, or two numbers claim one cell.
    """
    if results.is_empty():
        raise UserError("there are no rows to show: the result table is empty, or `where` matches none of them")
    results = in_reading_order(results)
    rows, columns = list(rows), list(columns)
    if not rows or not columns:
        raise UserError("rows and columns must each name a column of the result table")
    for name in (*rows, *columns, *([group_rows] if group_rows else [])):
        if name not in results.columns:
            raise UserError(f"the result table has no column {name!r}{nearest(str(name), results.columns)}")
    if set(rows) & set(columns):
        raise UserError(f"{', '.join(sorted(set(rows) & set(columns)))} cannot label both rows and columns")
    pages = [c for c in ("dataset", "metric", "model") if c not in rows and c not in columns]
    pages = [c for c in pages if results[c].n_unique() > 1 or c != "model"]
    extra = [c for c in varying(results, [*rows, *columns, *pages]) if c not in rows and c not in columns]
    without = [c for c in extra if c != "id_dataset"]
    if not results.select(*pages, *rows, *columns, *without).is_duplicated().any():
        extra = without  # calibrated rows name the set they were fitted on: no need to say it twice
    key = [*columns, *extra]
    clash = results.group_by([*pages, *rows, *key]).len().filter(pl.col("len") > 1)
    if not clash.is_empty():
        name = ", ".join(f"{k}={v}" for k, v in clash.row(0, named=True).items() if k != "len" and v not in ("", None))
        raise UserError(f"two numbers for one cell ({name}): narrow the table with `where`, or add a column to `rows`")
    opened = cache_schema.open_cache(cache) if isinstance(cache, str | Path) else cache
    built = []
    for _, part in results.group_by(pages, maintain_order=True) if pages else [((), results)]:
        page = {c: str(part[c][0]) for c in pages}
        built.append(
            _one_page(
                part,
                page,
                rows,
                key,
                len(columns),
                best=best,
                intervals=intervals,
                group_rows=group_rows,
                digits=digits,
                percent=percent,
                sort=sort,
                cache=opened,
            )
        )
    return built


def _one_page(
    part: pl.DataFrame,
    page: dict[str, str],
    rows: list[str],
    key: list[str],
    n_asked: int,
    *,
    best: bool,
    intervals: bool,
    group_rows: str,
    digits: int | None,
    percent: bool,
    sort: str,
    cache: Cache | None,
) -> Table:
    part = part.with_columns(pl.col(c).cast(pl.String).fill_null("") for c in (*rows, *key))
    labels = part.sort(ORDER).select(rows).unique(maintain_order=True).rows()
    heads = _columns(part, page, key, n_asked, percent)
    if group_rows:
        check_column(group_rows)
        group_of = dict(zip(part.select(rows).rows(), part[group_rows].to_list(), strict=True))
        ranks = {name: i for i, name in enumerate(dict.fromkeys([*GROUPS, *sorted(part[group_rows].unique())]))}
        labels.sort(key=lambda label: ranks[group_of[label]])
    else:
        group_of = dict.fromkeys(labels, "")
    number = {
        (tuple(row[: len(rows)]), tuple(row[len(rows) : -4])): Cell(*row[-4:])
        for row in part.select(*rows, *key, "value", "low", "high", "reason").rows()
    }
    if sort:
        labels = _sorted(labels, heads, number, group_of, sort)
    cells = [[number.get((label, head.key), Cell()) for head in heads] for label in labels]
    notes = list(notes_on(part, key, rows))
    if best:
        found = paired_marks(part, rows, key, labels, heads, cache) if cache is not None else PairedMarks()
        cells = marked(cells, heads, found.tested)
        notes += found.notes
        shared = [place for place in share_the_first(cells) if place not in found.tested]
        if shared:
            of = {heads[place].key: heads[place].metric or heads[place].name for place in shared}
            notes.append(Note.of(AS_GOOD, of))
    reasons: dict[str, int] = {}
    for row in cells:
        for cell in row:
            if cell.value is None and cell.reason:
                reasons[cell.reason] = reasons.get(cell.reason, 0) + 1
    groups = [GROUPS.get(group_of[label], group_of[label]) for label in labels]
    return Table(
        page=page,
        row_names=tuple(rows),
        rows=tuple(labels),
        groups=tuple(groups),
        columns=tuple(heads),
        cells=tuple(map(tuple, cells)),
        digits=digits,
        intervals=intervals,
        reasons=reasons,
        notes=tuple(notes),
    )


def _columns(part: pl.DataFrame, page: dict[str, str], key: list[str], n_asked: int, percent: bool) -> list[Column]:
    """Columns in the order of their first appearance, what shares the first name and the variants side by side."""
    seen = part.group_by(key, maintain_order=True).agg(
        pl.col("metric").first().alias("_metric"),
        pl.col("metric").n_unique().alias("_metrics"),
        pl.col("direction").first().alias("_direction"),
    )
    first: dict[tuple[str, ...], int] = {}
    built = []
    for row in seen.rows():
        values, (metric, n_metrics, direction) = tuple(row[: len(key)]), row[len(key) :]
        first.setdefault(values[:n_asked], len(first))
        metric = metric if n_metrics == 1 else ""
        asked = values[:n_asked]
        is_mean = {**page, **dict(zip(key, asked, strict=False))}.get("dataset", "-") == ""
        given = variant_words(key[n_asked:], values[n_asked:], is_mean=is_mean)
        name = headed([v or MEAN * (k == "dataset") for k, v in zip(key, asked, strict=False)], given, "[]")
        shown = [column_title(k, v) for k, v in zip(key, asked, strict=False)]
        scores = [score_title(v) if k == "score" else v for k, v in zip(key[n_asked:], values[n_asked:], strict=True)]
        marks = variant_words(key[n_asked:], scores, is_mean=is_mean)
        title = headed(shown, marks, "()")
        built.append(
            Column(
                key=values,
                name=name or "–",
                title=title or "–",
                metric=metric,
                direction=direction if metric else "none",
                percent=percent and in_percent(metric),
                variant=bool(given),
                over=shown[0] if len(shown) > 1 else "",
                under=headed(shown[1:], marks, "()"),
            )
        )
    named = Counter(column.name for column in built)
    built = [column if named[column.name] == 1 else _by_its_options(column) for column in built]
    outer: dict[str, int] = {}  # of --columns dataset,metric the first goes around the second
    for column in built:
        outer.setdefault(column.key[0] if n_asked > 1 else "", len(outer))
    return sorted(built, key=lambda column: (outer.get(column.key[0], 0), first[column.key[:n_asked]]))


def _by_its_options(column: Column) -> Column:
    """Name a column by its options as they are stored, where words would not distinguish it from another."""
    text = f"[{', '.join(value for value in column.key if value)}]"
    return replace(column, name=text, title=text)


def _sorted(
    labels: list[tuple[str, ...]],
    heads: list[Column],
    number: dict[Any, Cell],
    group_of: dict[Any, str],
    sort: str,
) -> list[tuple[str, ...]]:
    names = [head.name for head in heads]
    if sort not in names:
        raise UserError(f"no column {sort!r} to sort by{nearest(sort, names, list_all=True)}")
    head = heads[names.index(sort)]
    order = list(dict.fromkeys(group_of[label] for label in labels))

    def place(label: tuple[str, ...]) -> tuple[int, bool, float]:
        value = number.get((label, head.key), Cell()).value
        if value is None or math.isnan(value):
            return order.index(group_of[label]), True, 0.0
        return order.index(group_of[label]), False, value if head.direction == "lower" else -value

    return sorted(labels, key=place)
