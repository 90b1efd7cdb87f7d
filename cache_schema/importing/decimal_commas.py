"""Columns of numbers with decimal commas: read where they can be nothing else, refused where they could be."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

_NUMBER = r"^[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?$|^(?i:[+-]?(nan|inf))$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"
"""Numbers with a comma that could also separate thousands: ``1,234``."""


def with_decimal_commas(
    frame: Any,
    path: Path,
    separator: str,
    numbers: Collection[str],
    *,
    others: Collection[str] = (),
    report: Callable[[str], None] = lambda _line: None,
) -> Any:
    """Return a frame read from a CSV file whose columns of numbers with decimal commas are numbers.

    Parameters
    ----------
    frame
        A polars frame; numbers with decimal commas are text in it.
    path, separator
        Of the file.
    numbers
        Columns that hold numbers by their meaning. Only these can show that the file has decimal commas.
    others
        Columns that are numbers in such a file if all of their cells are.
    report
        Called with one line that names the columns, if any of ``others`` is converted.

    Raises
    ------
    UserError
        The commas could separate thousands (``1,234``), or another column of numbers has decimal points.
    """
    import polars as pl

    shown = [name for name in frame.columns if name in numbers and _has_decimal_commas(frame[name])]
    if not shown:
        return frame
    cells = pl.concat([_cells(frame[name]) for name in shown])
    with_commas = cells.filter(cells.str.contains(",", literal=True))
    if with_commas.str.contains(_THOUSANDS).all():
        raise UserError(
            f"{path}: column {shown[0]!r} has numbers such as {with_commas[0]!r}, whose comma could separate decimals"
            " or thousands; write them with a decimal point"
        )
    more = [name for name in frame.columns if name in others and _has_decimal_commas(frame[name])]
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    for name in floats:
        raw = pl.read_csv(path, separator=separator, columns=[name], infer_schema=False, glob=False)[name]
        points = raw.drop_nulls()
        points = points.filter(points.str.contains(".", literal=True))
        if len(points):
            raise UserError(
                f"{path}: column {shown[0]!r} has decimal commas ({with_commas[0]!r}) and column {name!r} has decimal"
                f" points ({points[0]!r}); write the file with one of them"
            )
    if more:
        named = ", ".join(map(repr, more[:10])) + (f" ... ({counted(len(more), 'column')})" if len(more) > 10 else "")
        report(f"{path} has decimal commas; {named} are read as such numbers too")
    text = pl.col(*shown, *more).str.strip_chars().replace("", None)
    return frame.with_columns(text.str.replace(",", ".", literal=True).cast(pl.Float64))


def _cells(column: Any) -> Any:
    """Return the cells of a column of text that are not empty."""
    text = column.str.strip_chars().drop_nulls()
    return text.filter(text != "")


def _has_decimal_commas(column: Any) -> bool:
    """Return whether every cell of a column of text is a number, and some have a comma."""
    import polars as pl

    if column.dtype != pl.String:
        return False
    cells = _cells(column)
    return bool(cells.str.contains(",", literal=True).any() and cells.str.contains(_NUMBER).all())
