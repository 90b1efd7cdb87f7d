"""Hugging Face data sets kept as Parquet files: images as bytes in a column, labels as numbers beside
them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.datasets.base import NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.images import UnreadableImage
from extract.datasets.manifest import as_column

_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture")
_LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")
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


@dataclass(frozen=True)
class Table:
    """What the files hold, one row an image."""

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    sizes: NDArray[np.int64]
    metadata: dict[str, NDArray[np.generic]]
    source: ParquetSource

    @property
    def rows(self) -> Rows:
        """Names, label numbers as they stand in the files, and sizes."""
        return Rows(self.names, self.labels, self.sizes)


def read_parquet_folder(folder: Path, split: str = "") -> Table:
    """List the rows of a folder of Parquet files, in order of file name and row.

    A row's name is ``FILE/ROW``; its size is that of its file, since the files' bytes are not read.

    Parameters
    ----------
    folder
        Holds ``<split>-00000-of-00001.parquet`` or the like, itself or below (``data/``).
    split
        Take the files whose names begin with it.

    Raises
    ------
    UserError
        No such files, several splits and none chosen, or no column of images.
    """
    files = [file for file in sorted(folder.rglob("*.parquet")) if file.name.startswith(split)]
    if not files:
        raise UserError(_no_files(folder, split))
    splits = sorted({file.name.partition("-")[0].removesuffix(".parquet") for file in files})
    if not split and len(splits) > 1:
        raise UserError(f"{folder} holds several splits; say which: split = {' or '.join(map(repr, splits))}")
    schema = pl.scan_parquet(files[0]).collect_schema()
    image = next((name for name in _IMAGE_COLUMNS if name in schema), None)
    if image is None:
        raise UserError(
            f"{files[0]}: no column of images among {', '.join(schema)}; one of {', '.join(_IMAGE_COLUMNS)}"
        )
    label = next((name for name in _LABEL_COLUMNS if name in schema and schema[name].is_integer()), None)
    plain = [name for name, kind in schema.items() if name != image and not kind.is_nested() and kind != pl.Binary]
    heights = [pl.scan_parquet(file).select(pl.len()).collect().item() for file in files]
    table = pl.concat([pl.scan_parquet(file).select(plain).collect() for file in files])
    file_of = np.repeat(np.arange(len(files), dtype=np.int32), heights)
    row_of = np.concatenate([np.arange(height, dtype=np.int64) for height in heights])
    labels = np.full(len(row_of), NO_LABEL, dtype=np.int32)
    if label is not None:
        labels = table.get_column(label).fill_null(NO_LABEL).cast(pl.Int32).to_numpy().copy()
    relative = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    names = tuple(f"{relative[f]}/{row:08}" for f, row in zip(file_of, row_of, strict=True))
    sizes = np.asarray([file.stat().st_size for file in files], dtype=np.int64)[file_of]
    return Table(
        names,
        labels,
        _class_names(files[0], label),
        sizes,
        {name: as_column(table.get_column(name)) for name in plain if name != label},
        ParquetSource(tuple(files), image, file_of, row_of),
    )


def _no_files(folder: Path, split: str) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if next(folder.rglob("*.arrow"), None) is not None:
        return f"{folder} holds Arrow files; write them as Parquet once: datasets.load_from_disk(...).to_parquet(...)"
    wanted = f" whose name begins with {split!r}" if split else ""
    return f"{folder} holds no .parquet file{wanted}"


def _class_names(file: Path, label: str | None) -> tuple[str, ...]:
    """Return the label names that Hugging Face keeps in the file's own metadata, if it does."""
    if label is None:
        return ()
    try:
        features = json.loads(pl.read_parquet_metadata(file)["huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, AttributeError):  # AttributeError: polars before 1.28
        return ()
    return tuple(map(str, names))
