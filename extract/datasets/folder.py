"""Readers of plain folders: class folders, and flat folders without labels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from extract.classes.spaces import ClassSpace
from extract.classes.unicode_names import refuse_same_names
from extract.datasets.base import NO_LABEL
from extract.datasets.labels import label_map
from extract.datasets.listing import Listed, list_images, subfolders
from extract.datasets.remarks import remark


class Rows(NamedTuple):
    """What a reader hands over: paths in row order, labels (n,) int32 and byte sizes (n,) int64."""

    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]


def class_folder_names(listed: list[Listed], root: Path) -> list[str]:
    """Return the names of the top-level folders that hold images, sorted; folders without images are reported.

    Raises
    ------
    UserError
        There are no images, or some lie outside every class folder.
    """
    if not listed:
        raise UserError(f"{root} holds no images")
    loose = next((item.path for item in listed if "/" not in item.path), None)
    if loose is not None:
        raise UserError(
            f"{root} holds images outside class folders ({loose!r}): give a manifest with their labels,"
            ' or labels = "none" for a set without labels'
        )
    names = {item.path.partition("/")[0] for item in listed}
    refuse_same_names(names, root)
    if empty := empty_class_folders(root, names):
        shown = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        many = f"{len(empty)} class folders hold" if len(empty) > 1 else "1 class folder holds"
        remark(f"{many} no images: {shown}")
    return sorted(names)


def empty_class_folders(root: Path, names: Collection[str]) -> list[str]:
    """Return the top-level folders that are not among ``names``, those of the images; sorted."""
    return [name for name in subfolders(root) if name not in names]


def read_class_folders(
    root: Path, space: ClassSpace, labels: str = "auto", *, listed: list[Listed] | None = None
) -> Rows:
    """Read a tree ``root/<class>/**/<image>``.

    Folder names are read as WordNet ids, class indices or class names of ``space``; their rank never counts
    (sorted as text, ``10`` comes before ``2``).

    Parameters
    ----------
    root
        The folder that holds the class folders.
    space
        Class space of the labels.
    labels
        ``auto``, ``wnid``, ``index`` or ``name``; see `extract.datasets.labels.label_map`.
    listed
        The images, if they were listed already.

    Raises
    ------
    UserError
        No images, images outside class folders, or folder names that are not classes of the space.
    """
    listed = list_images(root) if listed is None else listed
    names = class_folder_names(listed, root)
    index = label_map(names, space, labels, where=str(root))
    found = [index[item.path.partition("/")[0]] for item in listed]
    return _rows(listed, np.asarray(found, dtype=np.int32))


def read_flat(root: Path, *, listed: list[Listed] | None = None) -> Rows:
    """Read every image below ``root`` as one without a label (-1), whatever its folder is called.

    Raises
    ------
    UserError
        ``root`` holds no images.
    """
    listed = list_images(root) if listed is None else listed
    if not listed:
        raise UserError(f"{root} holds no images")
    return _rows(listed, np.full(len(listed), NO_LABEL, dtype=np.int32))


def _rows(listed: list[Listed], labels: NDArray[np.int32]) -> Rows:
    return Rows(
        tuple(item.path for item in listed),
        labels,
        np.asarray([item.size for item in listed], dtype=np.int64),
    )
