"""Images kept as bytes in a column of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.datasets.images import UnreadableImage
from extract.datasets.manifest import as_column
from extract.datasets.tables import FILE_NAME, Table, class_names, label_numbers, need_pyarrow, pick_columns

_BLOCK = 64
"""Rows read at once; images are read in row order, so the next ones are mostly there already."""


@dataclass
class ParquetSource:
    """Reads images out of Parquet files in small blocks of rows.

    Attributes
    ----------
    files
        The Parquet files.
    column
        The column of images: a struct with ``bytes``, or bytes.
    file_of, row_of
        Per image, (n,): index of its file, and row in it.
    """

    files: tuple[Path, ...]
    column: str
    file_of: NDArray[np.int32]
    row_of: NDArray[np.int64]
    _held: tuple[int, int, list[Any]] = field(default=(-1, -1, []), repr=False)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        file, row = int(self.file_of[index]), int(self.row_of[index])
        start = row - row % _BLOCK
        if self._held[:2] != (file, start):
            try:
                frame = pl.scan_parquet(self.files[file]).select(self.column).slice(start, _BLOCK).collect()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise UnreadableImage(f"{self.files[file].name}: {str(error).splitlines()[0]}") from None
            self._held = (file, start, frame.get_column(self.column).to_list())
        rows = self._held[2]
        if row - start >= len(rows):
            raise UnreadableImage(f"{self.files[file].name} is shorter than it was")
        value = rows[row - start]
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return data


def read_parquet_files(folder: Path, files: Sequence[Path]) -> Table:
    """List the rows of Parquet files; the images' bytes are not read, so a row's size is that of its file.

    Raises
    ------
    UserError
        A file cannot be read, the files have different columns, or none of images.
    """
    pa = need_pyarrow()
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(files[0])
        kinds = {f.name: f.type for f in schema}
        texts_or_numbers = [n for n, kind in kinds.items() if pa.types.is_integer(kind) or _is_text(pa, kind)]
        plain = [n for n, kind in kinds.items() if not pa.types.is_nested(kind) and not _is_binary(pa, kind)]
        columns = pick_columns(list(kinds), texts_or_numbers, plain, files[0])
        path = f"{columns.image}.path" if _has_path(pa, kinds[columns.image]) else None
        wanted = [*columns.plain, *([columns.label] if columns.label else []), *([path] if path else [])]
        heights = [parquet.read_metadata(file).num_rows for file in files]
        read = pa.concat_tables([_columns(parquet, file, wanted) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder}: its Parquet files cannot be read: {str(error).splitlines()[0]}") from None
    table: pl.DataFrame = pl.from_arrow(read) if wanted else pl.DataFrame()  # type: ignore[assignment]
    file_of = np.repeat(np.arange(len(files), dtype=np.int32), heights)
    row_of = np.concatenate([np.arange(height, dtype=np.int64) for height in heights])
    relative = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    labels, classes = label_numbers(
        table.get_column(columns.label) if columns.label else None,
        len(row_of),
        class_names({**(schema.metadata or {}), **(parquet.read_metadata(files[0]).metadata or {})}, columns.label),
    )
    metadata = {name: as_column(table.get_column(name)) for name in columns.plain}
    if path:
        metadata.setdefault(FILE_NAME, as_column(table.get_column(columns.image).struct.field("path")))
    return Table(
        tuple(f"{relative[f]}/{row:08}" for f, row in zip(file_of, row_of, strict=True)),
        labels,
        classes,
        np.asarray([file.stat().st_size for file in files], dtype=np.int64)[file_of],
        metadata,
        ParquetSource(tuple(files), columns.image, file_of, row_of),
    )


def _columns(parquet: Any, file: Path, wanted: Sequence[str]) -> Any:
    # Not read_table, which does not read one field of a column alone.
    with parquet.ParquetFile(file) as opened:
        return opened.read(columns=list(wanted))


def _is_text(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_path(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)
