"""Tables whose rows hold an image as bytes: which column is what, and what a row is called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError
from extract.datasets.base import ImageSource
from extract.datasets.columns import FILE_NAME, LABEL, LABEL_NAMES, find_column, shown
from extract.datasets.folder import Rows

__all__ = ["FILE_NAME", "IMAGE_COLUMNS", "Columns", "Table", "class_names", "need_pyarrow", "pick_columns"]

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture")


@dataclass(frozen=True, eq=False)
class Table:
    """What the files hold, one row an image.

    Attributes
    ----------
    names
        ``FILE/ROW``.
    labels
        (n,) int32, numbers as they are; -1 where there is none.
    class_names
        The classes that the numbers count, if the files state them.
    sizes
        (n,) int64, bytes of the image, or of the whole file where that is not known without reading it.
    metadata
        Further columns, (n,) each.
    source
        Reader of the images.
    has_labels
        Whether there is a column of labels.
    layout
        What the files are called in messages.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    sizes: NDArray[np.int64]
    metadata: dict[str, NDArray[np.generic]]
    source: ImageSource
    has_labels: bool = True
    layout: str = ""

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


def pick_columns(
    names: Sequence[str], images: Sequence[str], plain: Sequence[str], where: Path, label_column: str = ""
) -> Columns:
    """Return the columns of a table.

    Parameters
    ----------
    names
        All columns.
    images
        Those that hold bytes.
    plain
        Those that hold a single value a row.
    where
        The file, for messages.
    label_column
        The column of labels, where it has another name than the usual ones.

    Raises
    ------
    UserError
        No column of images, or the column of labels that is asked for is not there.
    """
    image = next((name for name in IMAGE_COLUMNS if name in names), images[0] if len(images) == 1 else None)
    if image is None:
        raise UserError(f"{where}: no column of images among {shown(names)}; one of {', '.join(IMAGE_COLUMNS)}")
    others = [name for name in names if name != image]
    label = find_column(others, LABEL, LABEL_NAMES, label_column, where)
    return Columns(image, label, tuple(name for name in plain if name not in (image, label)))


def class_names(metadata: Mapping[Any, Any] | None, label: str | None) -> tuple[str, ...]:
    """Return the class names that Hugging Face keeps in the schema of a file; empty where it does not."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(map(str, feature["names"] if "names" in feature else feature["feature"]["names"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def need_pyarrow() -> Any:
    """Return pyarrow, or say how to get it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"Parquet and Arrow data sets are read with pyarrow: {install_line('extract')}") from None
    return pyarrow
