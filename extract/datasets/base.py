"""A dataset: an ordered list of images with labels, and how to read each of them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_schema.format.records import DatasetCard
from closerlook_common.errors import UserError
from extract.classes.choices import Choice
from extract.classes.spaces import ClassSpace
from extract.datasets.images import UnreachableImage, UnreadableImage, decode_rgb, fault_of

NO_LABEL = -1
MISSING = -1
"""The size of a file that is named but is not there."""


PAUSES = (0.2, 1.0)
"""Seconds before a file whose disk or file server gave an error is tried again."""


class NoSuchLayout(UserError):
    """A folder holds nothing of a dataset, whatever its name says."""


class ImageSource(Protocol):
    """Where the bytes of image ``index`` come from, if not from files below a folder (shards, Arrow
    tables).
    """

    def read(self, index: int) -> bytes:
        """Return the bytes of one image, or raise `UnreadableImage` or `UnreachableImage`."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the images."""
        ...


@dataclass(frozen=True, eq=False)
class ChosenRows:
    """Some rows of another source: row i of this one is row ``rows[i]`` of that."""

    source: ImageSource
    rows: NDArray[np.intp]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        return self.source.read(int(self.rows[index]))

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the images."""
        return self.source.files


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Images in row order, with labels and everything known about each.

    Attributes
    ----------
    card
        The dataset card; its ``digest`` and ``n_images`` describe these very rows.
    root
        Folder that ``paths`` are relative to.
    paths
        Relative POSIX paths (or keys) in row order: sorted, whatever order the file system lists them in.
    labels
        (n,) int32, index in the class space (of super-classes where the card has a class map); -1 where there
        is none.
    keys
        Names of the rows where they are not the paths: ImageNet-val's are its file names, so that a flat copy
        and one in class folders are one dataset.
    sizes
        (n,) int64, bytes; -1 where a file is named by a manifest but missing.
    class_space
        The space of the logits; None where none is given (an OOD set takes the one of its in-distribution
        set).
    metadata
        Per-image columns, each (n,): str objects, int64, float64 or bool.
    captions
        One tuple of captions an image, for datasets of pairs; None otherwise.
    questions
        What is asked about each image, for datasets of questions with options; None otherwise.
    border_crop
        Pixels cut off each side when an image is opened.
    already_cropped
        Side of images that are stored as the finished crop (224 for ImageNet-C): a model of that input size
        takes them as they are. None where the usual resize and crop apply.
    source
        Reader of images that do not lie as files below ``root``.
    stamps
        Size and time (ns) of each file of ``source`` when its images were listed.
    problems
        What was found odd while listing, one line each, none of it fatal.
    empty_classes
        Folders without images next to the class folders, where these are the classes.
    """

    card: DatasetCard
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    class_space: ClassSpace | None = None
    metadata: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    captions: tuple[tuple[str, ...], ...] | None = None
    questions: tuple[Choice, ...] | None = None
    border_crop: int = 0
    already_cropped: int | None = None
    source: ImageSource | None = None
    keys: tuple[str, ...] | None = None
    stamps: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.paths)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The rows' names in every store: the keys, or the relative paths."""
        return self.paths if self.keys is None else self.keys

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, as on the card."""
        return self.card.digest

    def read(self, index: int) -> bytes:
        """Return the bytes of image ``index``.

        Raises
        ------
        UnreadableImage
            The image is at fault: its file is missing, or no file.
        UnreachableImage
            The machine is: the file may not be read, its disk or file server does not answer, also later.
        """
        if self.source is not None:
            return self.source.read(index)
        for pause in (*PAUSES, None):
            try:
                return _bytes_of(self.root / self.paths[index])
            except OSError as error:
                fault = fault_of(error)
                if pause is None or not isinstance(fault, UnreachableImage) or isinstance(error, PermissionError):
                    raise fault from None
                time.sleep(pause)
        raise AssertionError

    def open(self, index: int) -> Image.Image:
        """Return image ``index`` as RGB, border cut off, EXIF rotation ignored; raises `UnreadableImage`."""
        return decode_rgb(self.read(index), border_crop=self.border_crop)


def _bytes_of(path: Path) -> bytes:
    """Return a file's bytes; what is not a file (a pipe, a device) is never waited for."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnreadableImage("it is not a file")
        return file.read()


def manifest_digest(
    paths: Sequence[str],
    labels: NDArray[np.int32],
    sizes: NDArray[np.int64],
    *,
    captions: Sequence[Sequence[str]] | None = None,
    border_crop: int = 0,
) -> str:
    """Return the SHA-256 over (path, label, byte size) of every image in order.

    Captions and a border crop, which change what a model sees, are part of it where there are any. Fields are
    separated by bytes that cannot occur in them, so no two manifests share a digest by concatenation.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"closerlook manifest 1, border {border_crop}\n".encode())
    for index, (path, label, size) in enumerate(zip(paths, labels.tolist(), sizes.tolist(), strict=True)):
        row = [path, str(label), str(size), *(captions[index] if captions is not None else ())]
        digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\0\n")
    return digest.hexdigest()
