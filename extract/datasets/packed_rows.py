"""Rows of Arrow and Parquet files that hold an image as bytes: what the readers of both formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from extract.datasets.images import UnreadableImage
from extract.datasets.label_columns import label_numbers
from extract.datasets.manifest import as_column
from extract.datasets.tables import FILE_NAME, Columns, Table, class_names, pick_columns


@dataclass
class PackedSource(ABC):
    """Reads images out of Arrow or Parquet files.

    Attributes
    ----------
    files
        The files.
    column
        The column of images: a struct with ``bytes``, or bytes.
    file_of, row_of
        Per image, (n,): index of its file, and row in it.
    """

    layout: ClassVar[str]
    """What the files are called in messages."""
    files: tuple[Path, ...]
    column: str
    file_of: NDArray[np.int32]
    row_of: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image; UnreadableImage if there are none."""
        file, row = int(self.file_of[index]), int(self.row_of[index])
        value = self._value(file, row)
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return data

    @abstractmethod
    def _value(self, file: int, row: int) -> Any:
        """Return the value of the column of images in a row."""

    def _shorter(self, file: int) -> UnreadableImage:
        return UnreadableImage(f"{self.files[file].name} is shorter than it was")


def columns_of(pa: Any, schema: Any, file: Path, label_column: str) -> Columns:
    """Return the columns of an Arrow schema: images, labels, and those with a single value per row."""
    kinds = {field.name: field.type for field in schema}
    images = [name for name, kind in kinds.items() if is_binary(pa, kind) or has_field(pa, kind, "bytes")]
    plain = [name for name, kind in kinds.items() if not pa.types.is_nested(kind) and not is_binary(pa, kind)]
    return pick_columns(list(kinds), images, plain, file, label_column)


def is_binary(pa: Any, kind: Any) -> bool:
    """Return whether an Arrow type is one of bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def has_field(pa: Any, kind: Any, name: str) -> bool:
    """Return whether an Arrow type is a struct with a field."""
    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def packed_table(
    folder: Path,
    files: Sequence[Path],
    heights: Sequence[int],
    columns: Columns,
    frame: pl.DataFrame,
    *,
    schema_metadata: Mapping[Any, Any],
    sizes: NDArray[np.int64],
    file_names: NDArray[Any] | None,
    source: type[PackedSource],
) -> Table:
    """Return the rows of files as a table with the reader of their images.

    Parameters
    ----------
    folder, files, heights
        The data set's folder, its files, and the number of rows of each file.
    columns, frame
        Which column is what, and those that were read, (n,) each.
    schema_metadata
        Of the files' schema, with the class names that Hugging Face keeps there.
    sizes
        (n,) int64, see :class:`Table`.
    file_names
        (n,) names of the images as the files state them; None if they do not.
    source
        Class of the reader.
    """
    file_of = np.repeat(np.arange(len(files), dtype=np.int32), heights)
    row_of = np.concatenate([np.arange(height, dtype=np.int64) for height in heights])
    relative = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    labels, classes = label_numbers(
        frame.get_column(columns.label) if columns.label else None,
        len(row_of),
        class_names(schema_metadata, columns.label),
        f"{folder}, column {columns.label!r}",
    )
    metadata = {name: as_column(frame.get_column(name)) for name in columns.plain}
    if file_names is not None:
        metadata.setdefault(FILE_NAME, file_names)
    return Table(
        tuple(f"{relative[f]}/{row:08}" for f, row in zip(file_of, row_of, strict=True)),
        labels,
        classes,
        sizes,
        metadata,
        source(tuple(files), columns.image, file_of, row_of),
        columns.label is not None,
        source.layout,
    )
