"""Images kept as bytes in a column of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from closerlook_common.errors import UserError
from closerlook_common.input_files import refuse_lfs_pointer
from extract.datasets.images import UnreadableImage
from extract.datasets.manifest import as_column
from extract.datasets.packed_rows import PackedSource, columns_of, has_field, packed_table
from extract.datasets.parquet_tables import as_frame, read_columns, refuse_bomb, refuse_large_groups
from extract.datasets.tables import Table, need_pyarrow

_BLOCK = 64
"""Rows read at once; images are read in row order, so the next ones are mostly there already."""


@dataclass
class ParquetSource(PackedSource):
    """Reads images out of Parquet files in small blocks of rows; see :class:`PackedSource`."""

    layout = "Parquet files"
    _held: tuple[int, int, Any] = field(default=(-1, -1, ()), repr=False)

    def _value(self, file: int, row: int) -> Any:
        start = row - row % _BLOCK
        if self._held[:2] != (file, start):
            try:
                frame = pl.scan_parquet(self.files[file]).select(self.column).slice(start, _BLOCK).collect()
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                raise UnreadableImage(f"{self.files[file].name}: {str(error).splitlines()[0]}") from None
            # Not as a list: rows may share one image, and would then take its size each.
            self._held = (file, start, frame.get_column(self.column))
        rows = self._held[2]
        if row - start >= len(rows):
            raise self._shorter(file)
        return rows[row - start]


def read_parquet_files(folder: Path, files: Sequence[Path], label_column: str = "") -> Table:
    """List the rows of Parquet files; the images' bytes are not read, so a row's size is that of its file.

    Raises
    ------
    UserError
        A file cannot be read, unpacks to far more than itself, the files have different columns, or none of images.
    """
    pa = need_pyarrow()
    from pyarrow import parquet

    parts, heights, schema, columns, path = [], [], None, None, None
    for file in files:
        refuse_lfs_pointer(file)
        try:
            with parquet.ParquetFile(file) as opened:
                refuse_bomb(file, opened.metadata, 1)
                if schema is None or columns is None:
                    schema, names = opened.schema_arrow, opened.metadata.metadata
                    columns = columns_of(pa, schema, file, label_column)
                    path = f"{columns.image}.path" if has_field(pa, schema.field(columns.image).type, "path") else None
                elif opened.schema_arrow.names != schema.names:
                    raise UserError(
                        f"{folder}: its Parquet files have different columns ({files[0].name}, {file.name})"
                    )
                refuse_large_groups(file, opened.metadata, columns.image)
                wanted = [*columns.plain, *([columns.label] if columns.label else []), *([path] if path else [])]
                heights.append(opened.metadata.num_rows)
                if wanted:
                    parts.append(read_columns(file, opened, wanted))
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, UserError):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{folder}: its Parquet files cannot be read: {file.name}: {reason}") from None
    assert columns is not None
    assert schema is not None
    try:
        table = as_frame(pa.concat_tables(parts), folder) if parts else pl.DataFrame()
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise UserError(f"{folder}: its Parquet files have different columns: {str(error).splitlines()[0]}") from None
    file_names = as_column(table.get_column(columns.image).struct.field("path")) if path else None
    return packed_table(
        folder,
        files,
        heights,
        columns,
        table,
        schema_metadata={**(schema.metadata or {}), **(names or {})},
        sizes=np.repeat(np.asarray([file.stat().st_size for file in files], dtype=np.int64), heights),
        file_names=file_names,
        source=ParquetSource,
    )
