"""Tables whose rows hold an image as bytes: which column is what, and what a row is called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.datasets.base import NO_LABEL, ImageSource
from extract.datasets.folder import Rows

if TYPE_CHECKING:
    import polars as pl

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")
FILE_NAME = "file_name"
"""Metadata column of the names that the images had as files, where the table keeps them."""


@dataclass(frozen=True, eq=False)
class Table:
    """What the files hold, one row an image.

    Attributes
    ----------
    names
        ``FILE/ROW``.
    labels
        (n,) int32, numbers as they stand; -1 where there is none.
    class_names
        The classes that the numbers count, if the files tell.
    sizes
        (n,) int64, bytes of the image, or of the whole file where that is not told without reading it.
    metadata
        Further columns, (n,) each.
    source
        Reader of the images.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    sizes: NDArray[np.int64]
    metadata: dict[str, NDArray[np.generic]]
    source: ImageSource

    @property
    def rows(self) -> Rows:
        """Names, labels and sizes."""
        return Rows(self.names, self.labels, self.sizes)


@dataclass(frozen=True)
class Columns:
    """Which column is what: images, labels (None: there are none), and those kept as metadata."""

    image: str
    label: str | None
    plain: tuple[str, ...]


def pick_columns(names: Sequence[str], labels: Sequence[str], plain: Sequence[str], where: Path) -> Columns:
    """Return the columns of a table.

    Parameters
    ----------
    names
        All columns.
    labels
        Those that could hold labels by their type: whole numbers and text.
    plain
        Those that hold a single value a row.
    where
        The file, for messages.

    Raises
    ------
    UserError
        No column of images.
    """
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise UserError(
            f"{where}: no column of images among {', '.join(names)}; one of {', '.join(IMAGE_COLUMNS)}"
        )
    label = next((name for name in LABEL_COLUMNS if name in labels), None)
    return Columns(image, label, tuple(name for name in plain if name not in (image, label)))


def class_names(metadata: Mapping[Any, Any] | None, label: str | None) -> tuple[str, ...]:
    """Return the class names that Hugging Face keeps in the schema of a file; empty where it does not."""
    try:
        told = (metadata or {})[b"huggingface"]
        return tuple(map(str, json.loads(told)["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def label_numbers(
    values: pl.Series | None, n: int, named: tuple[str, ...]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return labels (n,) as numbers, and the classes they count; labels that are text become their own classes."""
    import polars as pl

    if values is None:
        return np.full(n, NO_LABEL, dtype=np.int32), ()
    if values.dtype.is_integer():
        return values.fill_null(NO_LABEL).cast(pl.Int32).to_numpy().copy(), named
    texts = [text.strip() for text in values.cast(pl.String).fill_null("").to_list()]
    known = sorted({text for text in texts if text})
    index = {text: number for number, text in enumerate(known)} | {"": NO_LABEL}
    return np.asarray([index[text] for text in texts], dtype=np.int32), tuple(known)


def need_pyarrow() -> Any:
    """Return pyarrow, or say how to get it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError("Parquet and Arrow data sets are read with pyarrow: pip install pyarrow") from None
    return pyarrow
