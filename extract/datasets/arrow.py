"""Images kept as bytes in a column of Arrow files, mapped into memory and never read whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from closerlook_common.input_files import refuse_lfs_pointer
from extract.datasets.arrow_messages import refuse_compressed
from extract.datasets.images import UnreadableImage
from extract.datasets.packed_rows import PackedSource, columns_of, has_field, packed_table
from extract.datasets.parquet_tables import as_frame
from extract.datasets.tables import Table, need_pyarrow


@dataclass
class ArrowSource(PackedSource):
    """Reads images out of Arrow files in place; see :class:`PackedSource`."""

    layout = "Arrow files"
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return {**self.__dict__, "_open": {}}

    def _value(self, file: int, row: int) -> Any:
        if file not in self._open:
            try:
                self._open[file] = image_bytes(open_arrow(self.files[file]).column(self.column))
            except UserError as error:
                raise UnreadableImage(str(error)) from None
        column = self._open[file]
        if row >= len(column):
            raise self._shorter(file)
        return column[row].as_py()


_END = b"\xff\xff\xff\xff\0\0\0\0"
"""What a complete stream ends with."""
_MAGIC = b"ARROW1"


def open_arrow(path: Path) -> Any:
    """Return the pyarrow table of a file in Arrow's streaming or file format, mapped into memory and validated.

    Raises
    ------
    UserError
        The file is neither, is cut short or compressed, or its lengths do not fit its bytes.
    """
    pa = need_pyarrow()
    refuse_lfs_pointer(path)
    try:
        is_file = _begins_and_ends(path)
        mapped = pa.memory_map(str(path))
        refuse_compressed(path)
        opened = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        table = opened.read_all()
        table.validate(full=True)  # offsets out of range would be read past the end of the map
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as an Arrow file: {reason}") from None
    return table


def _begins_and_ends(path: Path) -> bool:
    """Return whether a file is in the file format; raises `UserError` where a stream lacks its end."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            return True
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_END)))
        # A stream that was cut off between two of its batches reads as a shorter one.
        if size and file.read() != _END:
            raise UserError(f"{path} cannot be read as an Arrow file: it has no end mark, it was cut short")
    return False


def image_bytes(column: Any) -> Any:
    """Return the column of bytes within a column of images."""
    pa = need_pyarrow()
    if not pa.types.is_struct(column.type):
        return column
    if column.type.get_field_index("bytes") < 0:
        raise UserError(f"its images have the fields {', '.join(f.name for f in column.type)}, and none of them bytes")
    return pa.compute.struct_field(column, "bytes")


def read_arrow_files(folder: Path, files: Sequence[Path], label_column: str = "") -> Table:
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
    columns = columns_of(pa, schema, files[0], label_column)
    wanted = [*columns.plain, *([columns.label] if columns.label else [])]
    read: pl.DataFrame = pl.DataFrame()
    if wanted:
        read = as_frame(pa.concat_tables([table.select(wanted) for table in tables]), folder)
    lengths = [_lengths(pyarrow.compute.binary_length(image_bytes(t.column(columns.image)))) for t in tables]
    sizes = np.concatenate(lengths)
    if sizes.size and (sizes < 0).all():
        raise UserError(
            f"{folder} names its images and does not hold them; give the folder of image files,"
            " or save it again with datasets' save_to_disk, which takes them in"
        )
    file_names = None
    if has_field(pa, schema.field(columns.image).type, "path"):
        paths = [pa.compute.struct_field(table.column(columns.image), "path").to_pylist() for table in tables]
        file_names = np.asarray([path or "" for part in paths for path in part], dtype=object)
    return packed_table(
        folder,
        files,
        [len(part) for part in lengths],
        columns,
        read,
        schema_metadata=schema.metadata or {},
        sizes=sizes,
        file_names=file_names,
        source=ArrowSource,
    )


def _lengths(column: Any) -> NDArray[np.int64]:
    """Return (n,) lengths in bytes, -1 where a row is empty."""
    filled: NDArray[np.int64] = column.fill_null(-1).to_numpy().astype(np.int64)
    return filled
