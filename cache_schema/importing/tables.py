"""Read CSV and Parquet files whole, and check their columns; errors name the file, the column and the row."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.importing.column_names import KNOWN_COLUMNS, number_columns
from cache_schema.importing.decimal_commas import with_decimal_commas
from cache_schema.importing.limits import check_room, plain, regular_file
from cache_schema.importing.texts import texts_of
from closerlook_common.console.waiting import waiting
from closerlook_common.csv_files import first_line, separator_of
from closerlook_common.errors import UserError


def read_table(
    path: Path, *, text_columns: Sequence[str] = (), report: Callable[[str], None] = lambda _line: None
) -> Any:
    """Return a file as a polars frame; infer types from all rows, with decimal points or decimal commas.

    Parameters
    ----------
    path
        ``.csv`` (separated by commas, semicolons, tabs or bars) or ``.parquet``.
    text_columns
        Columns of a CSV, in any case, to read as text: ``007`` stays ``007``.
    report
        Called with one line for each column that is left out, such as lists and structures, and for notes that are
        read as numbers with decimal commas.
    """
    import polars as pl

    schema = table_schema(path)
    with _errors_in_one_line(path), waiting(f"reading {path}"):
        if _is_parquet(path):
            nested = [name for name, dtype in schema.items() if dtype.is_nested() or dtype == pl.Object]
            for name in nested:
                report(f"{path}: column {plain(name)!r} is {str(schema[name])[:40]}, not plain values, and is left out")
            return read_flat_parquet(path)
        separator = separator_of(first_line(path), KNOWN_COLUMNS)
        check_csv(path, separator)
        text = {name: pl.String for name in schema if name.lower() in text_columns}
        options: dict[str, Any] = {"separator": separator, "schema_overrides": text, "glob": False}
        frame = pl.read_csv(path, infer_schema_length=None, **options)
        numbers = number_columns(frame.columns)
        notes = [name for name in frame.columns if name not in numbers and name not in text]
        return with_decimal_commas(frame, path, separator, numbers, others=notes, report=report)


def read_flat_parquet(path: Path, names: Collection[str] | None = None) -> Any:
    """Return the columns of plain values of a Parquet file; nested ones are left out.

    Parameters
    ----------
    path
        Of the file.
    names
        Columns to read, where there; all if None.

    Raises
    ------
    UserError
        It would take far more memory than its size.
    polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError
        It cannot be read.
    """
    import polars as pl

    scan = pl.scan_parquet(path, glob=False)
    schema = scan.collect_schema()
    flat = [
        name
        for name, dtype in schema.items()
        if not (dtype.is_nested() or dtype == pl.Object) and (names is None or name in names)
    ]
    n = int(scan.select(pl.len()).collect().item())
    check_room(path, n * sum(_width(schema[name]) for name in flat))
    frame = scan.select(flat).collect()
    check_room(path, sum(_text_bytes(frame[name]) for name in flat))
    return frame


def check_csv(path: Path, separator: str) -> None:
    """Refuse a CSV file that takes far more memory than its size.

    Raises
    ------
    UserError
        Its rows are much shorter than its heading.
    polars.exceptions.PolarsError, OSError
        It cannot be read.
    """
    import polars as pl

    scan = pl.scan_csv(path, infer_schema_length=0, glob=False, separator=separator)
    columns, n = len(scan.collect_schema()), int(scan.select(pl.len()).collect().item())
    # Short rows are filled with empty cells; without a limit, a few bytes could claim any number of them.
    if n * columns > 2 * path.stat().st_size + 1000:
        raise UserError(f"{path}: the heading has {columns:,} columns, but rows have fewer; fill the rows")


def table_schema(path: Path) -> dict[str, Any]:
    """Return column -> type of a table from its header; in a CSV all types are text.

    Raises
    ------
    UserError
        The file cannot be read, is compressed, or has two columns of one name.
    """
    import polars as pl

    regular_file(path)
    with _errors_in_one_line(path):
        if _is_parquet(path):
            return dict(pl.scan_parquet(path, glob=False).collect_schema())
        separator = separator_of(first_line(path), KNOWN_COLUMNS)
        schema = dict(pl.scan_csv(path, infer_schema_length=0, glob=False, separator=separator).collect_schema())
    repeated = next((name for name in schema if re.fullmatch(r".*_duplicated_\d+", name)), None)
    if repeated is not None:
        raise UserError(f"{path}: two columns are called {plain(repeated.rsplit('_duplicated_', 1)[0])!r}; rename one")
    return schema


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() != ".csv"


def _width(dtype: Any) -> int:
    """Return the bytes of a value in memory; for text, without the characters."""
    import polars as pl

    sizes = {
        pl.Boolean: 1,
        pl.Int8: 1,
        pl.UInt8: 1,
        pl.Int16: 2,
        pl.UInt16: 2,
        pl.Int32: 4,
        pl.UInt32: 4,
        pl.Float32: 4,
    }
    return sizes.get(dtype.base_type(), 16 if dtype in (pl.String, pl.Binary) else 8)


def _text_bytes(column: Any) -> int:
    """Return the size of a column's texts in memory; a file stores equal ones once."""
    import polars as pl

    if column.dtype == pl.Binary:
        return int(column.bin.size().sum() or 0)
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return int(column.cast(pl.String).str.len_bytes().sum() or 0)
    return 0


@contextmanager
def _errors_in_one_line(path: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as error:
        reason = plain(" ".join(str(error).split()), 200)
        raise UserError(f"{path} cannot be read: {reason}") from error


def not_numeric(column: Any) -> str:
    """Return a message about a column that does not hold numbers, with the first row that is none."""
    import polars as pl

    if column.dtype == pl.String:
        bad = column.is_not_null() & column.cast(pl.Float64, strict=False).is_null()
        if bad.any():
            row = bad.arg_true()[0]
            return f"is {column.dtype}, not a number: row {row} is {str(column[row])[:60]!r}"
    return f"is {column.dtype}, not a number"


def whole_numbers(frame: Any, name: str, path: Path) -> NDArray[np.int64]:
    """Return a column as int64; accept floats that are all whole, as pandas writes them."""
    import polars as pl

    column = frame[name]
    missing = column.is_null()
    if column.dtype.is_float():
        missing |= column.is_nan().fill_null(value=True)
    if missing.any():
        none = " (-1 means no label)" if name in ("label", "labels") else ""
        raise UserError(f"{path}: column {name!r} is empty in row {missing.arg_true()[0]}{none}")
    if not column.dtype.is_integer() and not column.dtype.is_float():
        raise UserError(f"{path}: column {name!r} is {column.dtype}, not class indices (integers)")
    if column.dtype.is_integer():
        fits = column.cast(pl.Int64, strict=False)
        if fits.has_nulls():
            row = fits.is_null().arg_true()[0]
            raise UserError(f"{path}: column {name!r} holds {column[row]} in row {row}, which is not a class index")
        column = fits
    values = column.to_numpy()
    broken = ~((values > -(2.0**53)) & (values < 2.0**53))
    if values.dtype.kind == "f":
        broken |= values != np.floor(values)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise UserError(f"{path}: column {name!r} holds {values[row]} in row {row}, which is not a class index")
    return np.asarray(values.astype(np.int64))


def metadata_column(column: Any, path: Path) -> Any:
    """Return a metadata column: numbers and booleans unchanged if none is missing, everything else as text."""
    if column.dtype.is_numeric() or str(column.dtype) == "Boolean":
        if not column.has_nulls():
            return column.to_numpy()
        if column.dtype.is_float():
            return column.fill_null(float("nan")).to_numpy()
    return texts_of(column, f"{path}: column {column.name!r}")


def listed(frame: Any) -> str:
    """Return the names of a frame's columns as text, at most the first few."""
    return ", ".join(map(plain, frame.columns[:20])) + (
        f" ... ({len(frame.columns)} in all)" if len(frame.columns) > 20 else ""
    )
