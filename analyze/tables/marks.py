"""Which numbers of a column are marked as the best: by paired tests on the same images, or by intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from analyze.intervals.detection_pairs import NAMES
from analyze.intervals.winners import as_good_as_best
from analyze.results.quantities import Quantity
from analyze.tables.cells import Cell, Column
from analyze.tables.notes import Note
from analyze.trends.paired_winners import TESTED, as_good_in_table
from closerlook_common.errors import CloserlookError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

AS_GOOD = "every one that its interval does not distinguish from the best is marked (5 %, Tukey)"
BY_TEST = "{test} on the same images decides which are as good as the best (5 %, Tukey)"
TESTS = {
    "top1": "McNemar's mid-p test",
    "auroc": "DeLong's test",
    **dict.fromkeys(("nll", "brier"), "a paired test of means (bootstrap-t or Hall's)"),
}
"""Metric -> the test of two models; of the other numbers of OOD detection see ``OF_INFLUENCES``."""
OF_INFLUENCES = "a paired test of each image's influence"
PLAIN = ("calibrator", "subset", "factor", "options")


@dataclass(frozen=True)
class PairedMarks:
    """What paired tests say of the columns of a table.

    Attributes
    ----------
    tested
        Place of a column -> place of a row -> whether it cannot be distinguished from the best.
    notes
        By what test, and why the other columns are marked by intervals.
    """

    tested: Mapping[int, Mapping[int, bool]] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def paired_marks(
    part: pl.DataFrame,
    rows: Sequence[str],
    key: Sequence[str],
    labels: Sequence[tuple[str, ...]],
    heads: Sequence[Column],
    cache: Cache,
) -> PairedMarks:
    """Compare the models of each column on the same images.

    Parameters
    ----------
    part
        Rows of the result table that the page shows, one a cell.
    rows, key
        Columns that label the rows and the columns.
    labels, heads
        The rows and columns, in order.
    cache
        Where the predictions lie.
    """
    tested: dict[int, dict[int, bool]] = {}
    texts: dict[str, dict[tuple[str, ...], str]] = {}
    for place, head in enumerate(heads):
        if head.direction not in ("higher", "lower"):
            continue
        own = part.filter(pl.col(name) == value for name, value in zip(key, head.key, strict=True))
        own = own.filter(pl.col("value").is_not_null(), pl.col("value").is_not_nan())
        if len(own) < 2:
            continue
        try:
            found = _tested(own, cache)
        except CloserlookError as error:
            text = f"marked by intervals: {error}"
        else:
            label_of = dict(zip(own["model"], own.select(rows).rows(), strict=True))
            tested[place] = {labels.index(label_of[model]): good for model, good in found.items()}
            text = BY_TEST.format(test=TESTS.get(head.metric, OF_INFLUENCES))
        texts.setdefault(text, {})[head.key] = head.metric or head.name
    return PairedMarks(tested, tuple(Note.of(text, metrics) for text, metrics in texts.items()))


def _tested(own: pl.DataFrame, cache: Cache) -> dict[str, bool]:
    """Return which models of a column cannot be distinguished from the best.

    Raises
    ------
    CloserlookError
        Where not all of them can be compared on the same images, with the reason.
    """
    metric, dataset = own["metric"][0], own["dataset"][0]
    if own["metric"].n_unique() > 1 or own["dataset"].n_unique() > 1 or own["model"].is_duplicated().any():
        raise CloserlookError("the rows are not models on one dataset")
    if metric not in (*TESTED, *NAMES):
        raise CloserlookError("there is no paired test")
    if any((own[name] != "").any() for name in PLAIN):
        raise CloserlookError("there is a paired test of plain numbers alone")
    models = own["model"].to_list()
    found = as_good_in_table(own, Quantity(metric, dataset), models, cache)
    missing = [model for model in models if model not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CloserlookError(
            f"the cache does not hold the predictions on {dataset} that the numbers of {missing[0]}{more} are of, or"
            " not on the same images"
        )
    return found


def marked(
    cells: Sequence[Sequence[Cell]], heads: Sequence[Column], tested: Mapping[int, Mapping[int, bool]]
) -> list[list[Cell]]:
    """Return the cells with their ranks; see ``Cell.rank``.

    Parameters
    ----------
    cells, heads
        The numbers, and the columns with their directions.
    tested
        Of ``PairedMarks``; columns that are not in it are marked by intervals.
    """
    ranked = [list(row) for row in cells]
    for place, head in enumerate(heads):
        if head.direction in ("higher", "lower"):
            ranks = _ranks([row[place] for row in cells], head.direction == "higher", tested.get(place))
            for row, rank in zip(ranked, ranks, strict=True):
                row[place] = replace(row[place], rank=rank)
    return ranked


def _ranks(column: Sequence[Cell], higher: bool, tested: Mapping[int, bool] | None) -> list[int]:
    numbers = [[math.nan if v is None else v for v in (c.value, c.low, c.high)] for c in column]
    known = [not math.isnan(number[0]) for number in numbers]
    if sum(known) < 2:
        return [0] * len(column)
    if tested is None:
        best = as_good_as_best(*zip(*numbers, strict=True), higher=higher).tolist()
    else:
        best = [tested.get(place, False) for place in range(len(column))]
    others = [n[0] for n, is_known, is_best in zip(numbers, known, best, strict=True) if is_known and not is_best]
    second = (max(others) if higher else min(others)) if others else None
    return [1 if is_best else int(n[0] == second) * 2 for n, is_best in zip(numbers, best, strict=True)]


def share_the_first(cells: Sequence[Sequence[Cell]]) -> list[int]:
    """Return the places of the columns that have different numbers which are all marked as the best."""
    width = len(cells[0]) if cells else 0
    return [place for place in range(width) if len({row[place].value for row in cells if row[place].rank == 1}) > 1]
