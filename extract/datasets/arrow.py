"""Images kept as bytes in a column of Arrow files, mapped into memory and never read whole."""

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


@dataclass
class ArrowSource:
    """Reads images out of Arrow files in place.

    Attributes
    ----------
    files
        The Arrow files.
    column
        The column of images: a struct with ``bytes``, or bytes.
    file_of, row_of
        Per image, (n,): index of its file, and row in it.
    """

    files: tuple[Path, ...]
    column: str
    file_of: NDArray[np.int32]
    row_of: NDArray[np.int64]
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return {**self.__dict__, "_open": {}}

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        file, row = int(self.file_of[index]), int(self.row_of[index])
        if file not in self._open:
            try:
                self._open[file] = image_bytes(open_arrow(self.files[file]).column(self.column))
            except UserError as error:
                raise UnreadableImage(str(error)) from None
        column = self._open[file]
        if row >= len(column):
            raise UnreadableImage(f"{self.files[file].name} is shorter than it was")
        data = column[row].as_py()
        if not isinstance(data, bytes):
            raise UnreadableImage("the row holds no image bytes")
        return data


def open_arrow(path: Path) -> Any:
    """Return the pyarrow table of a file in Arrow's streaming or file format, mapped into memory.

    Raises
    ------
    UserError
        The file is neither, or cut short.
    """
    pa = need_pyarrow()
    try:
        mapped = pa.memory_map(str(path))
        try:
            return pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(mapped).read_all()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as an Arrow file: {str(error).splitlines()[0]}") from None


def image_bytes(column: Any) -> Any:
    """Return the column of bytes within a column of images."""
    pa = need_pyarrow()
    if not pa.types.is_struct(column.type):
        return column
    if column.type.get_field_index("bytes") < 0:
        raise UserError(f"its images have the fields {', '.join(f.name for f in column.type)}, and none of them bytes")
    return pa.compute.struct_field(column, "bytes")


def read_arrow_files(folder: Path, files: Sequence[Path]) -> Table:
    """List the rows of Arrow files; of the images only the lengths are looked at.

    Raises
    ------
    UserError
        A file cannot be read, has no column of images, or names images without holding them.
    """
    pa = need_pyarrow()
    import pyarrow.compute

    tables = [open_arrow(file) for file in files]
    schema = tables[0].schema
    if any(table.schema.names != schema.names for table in tables):
        raise UserError(f"{folder}: its Arrow files have different columns")
    frame = [name for name, kind in zip(schema.names, schema.types, strict=True) if not pa.types.is_nested(kind)]
    frame = [name for name in frame if not pa.types.is_binary(schema.field(name).type)]
    kinds = {name: schema.field(name).type for name in frame}
    texts_or_numbers = [n for n, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_string(kind)]
    columns = pick_columns(schema.names, texts_or_numbers, frame, files[0])
    wanted = [*columns.plain, *([columns.label] if columns.label else [])]
    read: pl.DataFrame = pl.DataFrame()
    if wanted:
        read = pl.from_arrow(pa.concat_tables([table.select(wanted) for table in tables]))  # type: ignore[assignment]
    lengths = [_lengths(pyarrow.compute.binary_length(image_bytes(t.column(columns.image)))) for t in tables]
    sizes = np.concatenate(lengths)
    if sizes.size and (sizes < 0).all():
        raise UserError(
            f"{folder} names its images and does not hold them; give the folder of image files,"
            " or save it again with datasets' save_to_disk, which takes them in"
        )
    relative = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    labels, classes = label_numbers(
        read.get_column(columns.label) if columns.label else None,
        len(sizes),
        class_names(schema.metadata, columns.label),
    )
    metadata = {name: as_column(read.get_column(name)) for name in columns.plain}
    kind = schema.field(columns.image).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        paths = [pa.compute.struct_field(table.column(columns.image), "path").to_pylist() for table in tables]
        named = [path or "" for part in paths for path in part]
        metadata.setdefault(FILE_NAME, np.asarray(named, dtype=object))
    file_of = np.repeat(np.arange(len(files), dtype=np.int32), [len(part) for part in lengths])
    row_of = np.concatenate([np.arange(len(part), dtype=np.int64) for part in lengths])
    return Table(
        tuple(f"{relative[f]}/{row:08}" for f, row in zip(file_of, row_of, strict=True)),
        labels,
        classes,
        sizes,
        metadata,
        ArrowSource(tuple(files), columns.image, file_of, row_of),
    )


def _lengths(column: Any) -> NDArray[np.int64]:
    """Return (n,) lengths in bytes, -1 where a row is empty."""
    filled: NDArray[np.int64] = column.fill_null(-1).to_numpy().astype(np.int64)
    return filled
