"""Parquet files of which no more is read than the file can hold: a small file may say that it has a billion rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from closerlook_common.errors import UserError
from closerlook_common.input_files import refuse_lfs_pointer
from extract.datasets.tables import need_pyarrow
from extract.datasets.text_tables import MOST_COLUMNS

ROWS_A_BYTE = 64
"""Rows that a byte of a manifest may hold. Names differ from row to row and take more; a column of one value takes less
than a bit a row."""

LEAST_ROWS = 100_000
LEAST_BYTES = 256 << 20
BYTES_A_BYTE = 100
_BATCH = 256


def read_parquet_table(path: Path) -> pl.DataFrame:
    """Read a whole Parquet file; raises `UserError` where it is damaged or unpacks to far more than itself."""
    pa = need_pyarrow()
    from pyarrow import parquet

    refuse_lfs_pointer(path)
    try:
        with parquet.ParquetFile(path) as opened:
            refuse_bomb(path, opened.metadata, ROWS_A_BYTE)
            names = opened.schema_arrow.names
            if len(names) > MOST_COLUMNS:
                raise UserError(f"{path} has {len(names):,} columns; a manifest has at most {MOST_COLUMNS:,}")
            return as_frame(read_columns(path, opened, names), path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}") from None


def refuse_bomb(path: Path, metadata: Any, rows_a_byte: int) -> None:
    """Raise `UserError` where a file has more rows than its bytes can distinguish."""
    size = path.stat().st_size
    if metadata.num_rows < 0 or metadata.num_rows > max(LEAST_ROWS, size * rows_a_byte):
        raise UserError(f"{path} says that it has {metadata.num_rows:,} rows in {size:,} bytes: it is not read")


def refuse_large_groups(path: Path, metadata: Any, column: str) -> None:
    """Raise `UserError` where a column of images unpacks to far more than it takes: images are compressed already."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            if chunk.path_in_schema.partition(".")[0] != column.partition(".")[0]:
                continue
            if chunk.total_uncompressed_size > max(LEAST_BYTES, BYTES_A_BYTE * chunk.total_compressed_size):
                size = chunk.total_uncompressed_size >> 20
                raise UserError(f"{path}: its images unpack to {size:,} MB from a fraction of that: it is not read")


def read_columns(path: Path, opened: Any, columns: Sequence[str]) -> Any:
    """Return some columns of an open file as a pyarrow table, validated; stops where they become too large.

    Raises
    ------
    UserError
        The columns take more memory than `LEAST_BYTES` and `BYTES_A_BYTE` times the file's size.
    """
    pa = need_pyarrow()
    size, total, batches = path.stat().st_size, 0, []
    for batch in opened.iter_batches(batch_size=_BATCH, columns=list(columns), use_threads=False):
        batch.validate(full=True)
        batch = _without_dictionaries(pa, batch)
        total += batch.nbytes
        if total > max(LEAST_BYTES, size * BYTES_A_BYTE):
            raise UserError(f"{path} unpacks to more than {total >> 20:,} MB from {size:,} bytes: it is not read")
        batches.append(batch)
    schema = pa.schema([field for field in opened.schema_arrow if field.name in {c.partition(".")[0] for c in columns}])
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


def _without_dictionaries(pa: Any, batch: Any) -> Any:
    """Return a batch whose columns have their values in full: that is what they take later."""
    if not any(pa.types.is_dictionary(kind) for kind in batch.schema.types):
        return batch
    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def as_frame(table: Any, where: object) -> pl.DataFrame:
    """Return a pyarrow table as a polars frame; raises `UserError` where polars cannot take it."""
    try:
        return pl.from_arrow(table.combine_chunks())  # type: ignore[return-value]
    except pl.exceptions.PanicException as error:  # no subclass of Exception
        raise UserError(f"{where} is damaged: {str(error).splitlines()[0][:200]}") from None
