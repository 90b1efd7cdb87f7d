"""ImageNet's own images: the validation set in its layouts, its ReaL labels, and the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from closerlook_common.errors import UserError
from extract.classes.spaces import IMAGENET_1K, class_space
from extract.datasets.base import ChosenRows
from extract.datasets.folder import Rows, read_class_folders
from extract.datasets.listing import list_images
from extract.datasets.maps import real_labels
from extract.datasets.recipes.base import Found, Recipe, candidates, class_folders, has_class_folders
from extract.datasets.recipes.val_labels import file_number, find_labels
from extract.datasets.specs import DatasetSpec
from extract.datasets.tables import FILE_NAME

VAL = "imagenet-val"
_VAL_PLACES = (
    "val",
    "validation",
    "ILSVRC2012_img_val",
    "ILSVRC/Data/CLS-LOC/val",
    "Data/CLS-LOC/val",
    "images",
)


def read_val(path: Path, spec: DatasetSpec) -> Found:
    """Read ImageNet-val from class folders, or from a flat folder with a label file; rows are ordered by file
    name.
    """
    space = class_space(IMAGENET_1K)
    places = list(candidates(path, _VAL_PLACES))
    root = next((place for place in places if has_class_folders(place)), None)
    if root is not None:
        listed = [item for item in list_images(root) if "/" in item.path]
        rows, layout = read_class_folders(root, space, spec.labels, listed=listed), "class folders"
    else:
        root = next((place for place in places if any(map(file_number, _names(place)))), path)
        flat = [item for item in list_images(root) if "/" not in item.path]
        if not flat:
            raise UserError(f"{path} holds neither class folders nor images; set path = to ImageNet's val folder")
        label_of, source = find_labels(root, [item.path for item in flat], space)
        labels = np.asarray([label_of[Path(item.path).stem] for item in flat], dtype=np.int32)
        sizes = np.asarray([item.size for item in flat], dtype=np.int64)
        rows, layout = Rows(tuple(item.path for item in flat), labels, sizes), f"flat, labels from {source}"
    return _by_file_name(Found(root=root, rows=rows, layout=layout), [path.rpartition("/")[2] for path in rows.paths])


def _by_file_name(found: Found, names: Sequence[str]) -> Found:
    """Return the rows ordered and called by file name, with their ReaL labels."""
    order = np.asarray(sorted(range(len(names)), key=names.__getitem__), dtype=np.intp)
    keys = tuple(names[i] for i in order)
    double = next((a for a, b in pairwise(keys) if a == b), None)
    if double is not None:
        raise UserError(f"{found.root}: the file name {double!r} occurs twice; ImageNet-val's names are unique")
    rows = Rows(tuple(found.rows.paths[i] for i in order), found.rows.labels[order], found.rows.sizes[order])
    columns = {name: column[order] for name, column in found.metadata.items()}
    return replace(
        found,
        rows=rows,
        keys=keys,
        metadata={**columns, "real_labels": _real_column(keys)},
        source=ChosenRows(found.source, order) if found.source is not None else None,
    )


def repack_val(found: Found, spec: DatasetSpec) -> Found:
    """Return rows of shards or tables under the file names of ImageNet-val, if all of them hold their number.

    The number is in the name of a shard's member, or in the name that a table keeps with the image. Rows without
    it keep the names ``FILE/ROW``: ReaL labels and ImageNet-X, which go by the number, are then not to be had.
    """
    given = found.metadata.get(FILE_NAME, np.asarray(found.rows.paths, dtype=object))
    numbers = [file_number(str(name)) for name in given]
    if None in numbers:
        return found
    metadata = {name: column for name, column in found.metadata.items() if name != FILE_NAME}
    return _by_file_name(replace(found, metadata=metadata), [f"ILSVRC2012_val_{number:08}.JPEG" for number in numbers])


def read_real(path: Path, spec: DatasetSpec) -> Found:
    """Read those images of ImageNet-val that have ReaL labels; the label is the first, ``label_set`` has
    all.
    """
    return _with_real_labels(read_val(path, spec), spec)


def _with_real_labels(val: Found, spec: DatasetSpec) -> Found:
    if val.keys is None:
        val = repack_val(val, spec)
    texts = val.metadata.get("real_labels", np.asarray([], dtype=object))
    keep = np.flatnonzero(texts != "")
    if not keep.size:
        raise UserError(f"{val.root}: no file is named ILSVRC2012_val_<number>, by which ReaL labels are looked up")
    first = np.asarray([int(str(texts[i]).split()[0]) for i in keep], dtype=np.int32)
    rows = Rows(tuple(val.rows.paths[i] for i in keep), first, val.rows.sizes[keep])
    metadata = {"label_set": texts[keep], "val_label": val.rows.labels[keep].astype(np.int64)}
    assert val.keys is not None
    keys = tuple(val.keys[i] for i in keep)
    source = ChosenRows(val.source, keep) if val.source is not None else None
    return Found(root=val.root, rows=rows, layout=val.layout, keys=keys, metadata=metadata, source=source)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _real_column(keys: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Return the ReaL labels of each file as text (``"207 208"``), empty where there are none."""
    table = real_labels()
    column = np.full(len(keys), "", dtype=object)
    for row, key in enumerate(keys):
        number = file_number(key)
        if number is not None and 0 < number <= len(table):
            column[row] = " ".join(map(str, table[number - 1]))
    return column


_VAL_FOLDERS = (
    "imagenet-val", "imagenet", "ILSVRC2012", "ILSVRC2012_img_val", "imagenet-1k", "imagenet2012", "ILSVRC",
)  # fmt: skip

RECIPES = (
    Recipe(
        name=VAL,
        title="ImageNet-1k validation set",
        role="id",
        source="Russakovsky et al., IJCV 2015",
        folders=_VAL_FOLDERS,
        expected=(50_000,),
        read=read_val,
        splits=("validation", "val"),
        repack=repack_val,
        basis="stated by ImageNet's owners",
        note="flat copies need a label file; rows are keyed by file name",
    ),
    Recipe(
        name="imagenet-real",
        title="ImageNet-val with ReaL labels",
        role="id",
        source="Beyer et al., 2020",
        folders=_VAL_FOLDERS,
        expected=(46_837,),
        read=read_real,
        splits=("validation", "val"),
        repack=_with_real_labels,
        basis="counted in the list of ReaL labels that timm ships",
        note="right = any label of label_set; the 3,163 images without ReaL labels are left out",
    ),
    Recipe(
        name="imagenet-train",
        title="ImageNet-1k training set, as reference",
        role="reference",
        source="Russakovsky et al., IJCV 2015",
        folders=("imagenet-train", "ILSVRC2012_img_train", "imagenet", "ILSVRC2012", "imagenet-1k", "ILSVRC"),
        expected=(1_281_167,),
        read=class_folders("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train"),
        splits=("train",),
        basis="stated by ImageNet's owners",
        note="streamed whole; per_class = 50 images a class are kept as a bank",
    ),
)
