"""Rows of a result table by name (``metric=top1``, ``dataset=imagenet-*``); typos get the nearest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import polars as pl

from analyze.results.table import RESULT_SCHEMA, VARIANT_COLUMNS
from closerlook_common.errors import UserError, nearest

NAME_COLUMNS = tuple(name for name, kind in RESULT_SCHEMA.items() if kind == pl.String())
"""Columns that a condition may name."""

Where = Mapping[str, str | Sequence[str]]
"""Column -> wanted value or values, with wildcards (``*``, ``?``); "" means the default variant."""


def parse_where(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Read ``key=value`` words of a command line.

    Values are separated by commas; a key that is given twice adds its values. ``key=`` asks for the empty
    value (the default variant); an exclamation mark before the equal sign (``key!=value``) excludes.

    Examples
    --------
    >>> parse_where(["metric=top1,ece", "calibrator="])
    {'metric': ['top1', 'ece'], 'calibrator': ['']}
    """
    where: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"condition {condition!r} is not of the form key=value (for example metric=top1)")
        check_column(key.removesuffix("!"))
        where.setdefault(key, []).extend(part.strip() for part in value.split(","))
    return where


def check_column(name: str, allowed: Sequence[str] = NAME_COLUMNS) -> str:
    """Return the name of a column, or raise a ``UserError`` that names the nearest ones."""
    if name not in allowed:
        raise UserError(
            f"a result table has no column {name!r} to choose by{nearest(name, allowed)}"
            f" The columns are {', '.join(allowed)}."
        )
    return name


def select(results: pl.DataFrame, where: Where) -> pl.DataFrame:
    """Return the rows that meet every condition.

    Parameters
    ----------
    results
        A result table.
    where
        Column -> value or values, wildcards allowed. A key that ends in ``!`` excludes instead.

    Raises
    ------
    UserError
        Where a condition names a column or a value that the table does not have.
    """
    chosen = results
    for key, wanted in where.items():
        column = check_column(key.removesuffix("!"))
        patterns = [wanted] if isinstance(wanted, str) else list(wanted)
        present = results[column].unique().to_list()
        matched: set[str] = set()
        for pattern in patterns:
            hits = {value for value in present if value == pattern or fnmatchcase(value, pattern)}
            if not hits and not key.endswith("!"):
                shown = sorted(v or repr(v) for v in present)
                more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
                listed = ", ".join(shown[:12])
                close = nearest(pattern, present)
                raise UserError(f"no row has {column} {pattern!r}{close or f'; there are {listed}{more}'}")
            matched |= hits
        mask = pl.col(column).is_in(sorted(matched))
        chosen = chosen.filter(~mask if key.endswith("!") else mask)
    if chosen.is_empty() and not results.is_empty():
        text = ", ".join(f"{key}={v if isinstance(v, str) else ','.join(v)}" for key, v in where.items())
        raise UserError(f"no row of the result table meets all of {text}")
    return chosen


def varying(results: pl.DataFrame, key: Sequence[str], candidates: Sequence[str] = VARIANT_COLUMNS) -> list[str]:
    """Return those candidate columns that take more than one value within a key."""
    if results.is_empty():
        return []
    candidates = [column for column in candidates if column not in key]
    counts = results.group_by(list(key)).agg(pl.col(column).n_unique() for column in candidates)
    return [column for column in candidates if (counts[column] > 1).any()]
