"""Rows of a dataset in, their pixels out; or why a row has none, or why the whole dataset must stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extract.datasets.base import MISSING, Dataset
from extract.datasets.images import MissingImage, UnreachableImage, UnreadableImage, decode_rgb
from extract.passes.shaping import Shaper, shape_all

if TYPE_CHECKING:
    from extract.models.base import Geometry

_shaper = Shaper()
"""Of this process."""


class DatasetStoppedError(Exception):
    """What would be sealed under the dataset's digest would not be the dataset; all of it must stop."""


class DatasetChangedError(DatasetStoppedError):
    """A file no longer has the size that the dataset's digest was made from."""


class DatasetUnreachableError(DatasetStoppedError):
    """A file cannot be had, for reasons of the machine: sealed without it, the store would never get it."""


def open_row(dataset: Dataset, row: int) -> Image.Image:
    """Return one image, decoded.

    Raises
    ------
    UnreadableImage
        The image is at fault; its row stays empty.
    DatasetChangedError, DatasetUnreachableError
        The dataset must stop.
    """
    path, expected = dataset.paths[row], int(dataset.sizes[row])
    try:
        data = dataset.read(row)
    except UnreachableImage as error:
        raise DatasetUnreachableError(
            f"{path} cannot be read: {error}; fix that and run the same command again, or leave the image out"
            " with a manifest"
        ) from None
    except UnreadableImage as error:
        if dataset.source is None and isinstance(error, MissingImage) and expected != MISSING:
            raise DatasetChangedError(_difference(path, expected, MISSING)) from None
        if dataset.source is not None and (change := changed_since(dataset)):
            raise DatasetChangedError(change) from None
        raise
    if dataset.source is None and len(data) != expected:
        raise DatasetChangedError(_difference(path, expected, len(data)))
    try:
        return decode_rgb(data, border_crop=dataset.border_crop)
    except UnreachableImage as error:
        raise DatasetUnreachableError(f"{path} cannot be read: {error}; then run the same command again") from None


@dataclass(eq=False)
class Rows:
    """What became of rows at one geometry: which are valid, and row and reason of those that are not."""

    valid: list[bool] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def take(self) -> None:
        """Add a row that is valid."""
        self.valid.append(True)

    def refuse(self, row: int, reason: str) -> None:
        """Add a row that is not."""
        self.valid.append(False)
        self.problems.append((row, reason))


def decode_rows(
    dataset: Dataset, geometries: Sequence[Geometry], start: int, stop: int, outs: Sequence[NDArray[np.uint8]]
) -> list[Rows]:
    """Decode each row once and put its pixels at every geometry into that geometry's ``out``."""
    found = [Rows() for _ in geometries]
    for row in range(start, stop):
        try:
            image = open_row(dataset, row)
        except UnreadableImage as error:
            for out, rows in zip(outs, found, strict=True):
                out[row - start] = 0
                rows.refuse(row, str(error))
            continue
        mine = [geometry.for_image(dataset.image_ids[row]) for geometry in geometries]
        reasons = shape_all(_shaper(image), mine, [out[row - start] for out in outs])
        for rows, reason in zip(found, reasons, strict=True):
            rows.refuse(row, reason) if reason else rows.take()
    return found


def last_change(dataset: Dataset) -> int:
    """Return when the newest of a dataset's image files was written, in ns; 0 where they lie in shards or tables."""
    newest = 0
    for name in dataset.paths if dataset.source is None else ():
        with contextlib.suppress(OSError):
            newest = max(newest, (dataset.root / name).stat().st_mtime_ns)
    return newest


def changed_since(dataset: Dataset, last: int | None = None) -> str:
    """Return which file is not the one that was listed, by its size, of shards and tables also by its time; else
    nothing.

    Parameters
    ----------
    dataset
        As it was listed.
    last
        Of `last_change`, earlier: a file that is newer was overwritten since, though its size may be the same.
    """
    if dataset.source is not None:
        for path, stamp in dataset.stamps.items():
            try:
                found = path.stat()
            except OSError as error:
                return f"{path.name} cannot be had any more: {error.strerror}"
            if (found.st_size, found.st_mtime_ns) != stamp:
                return f"{path.name} was changed after its images were listed"
        return ""
    for name, expected in zip(dataset.paths, dataset.sizes.tolist(), strict=True):
        size, written = MISSING, 0
        with contextlib.suppress(OSError):
            found = (dataset.root / name).stat()
            size, written = found.st_size, found.st_mtime_ns
        if size != expected:
            return _difference(name, expected, size)
        if last is not None and written > last:
            return f"{name} was overwritten while the dataset was read, by a file of the same size"
    return ""


def _difference(path: str, expected: int, size: int) -> str:
    before = "was missing" if expected == MISSING else f"had {expected} bytes"
    return f"{path} {before} and now has {'none: it is gone' if size == MISSING else f'{size} bytes'}"
