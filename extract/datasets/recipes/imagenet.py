"""ImageNet's own images: the validation set in its layouts, its ReaL labels, and the training set."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from cache_schema.errors import UserError
from extract.class_spaces import IMAGENET_1K, class_space
from extract.datasets.folder import Rows, read_class_folders
from extract.datasets.listing import list_images
from extract.datasets.maps import real_labels
from extract.datasets.recipes.base import Found, Recipe, candidates, class_folders, has_class_folders
from extract.datasets.recipes.val_labels import file_number, find_labels
from extract.datasets.specs import DatasetSpec

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
    names = [path.rpartition("/")[2] for path in rows.paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    rows = Rows(tuple(rows.paths[i] for i in order), rows.labels[order], rows.sizes[order])
    keys = tuple(names[i] for i in order)
    double = next((a for a, b in pairwise(keys) if a == b), None)
    if double is not None:
        raise UserError(f"{root}: the file name {double!r} occurs in two folders; ImageNet-val's names are unique")
    return Found(root=root, rows=rows, layout=layout, keys=keys, metadata={"real_labels": _real_column(keys)})


def read_real(path: Path, spec: DatasetSpec) -> Found:
    """Read those images of ImageNet-val that have ReaL labels; the label is the first, ``label_set`` has
    all.
    """
    val = read_val(path, spec)
    assert val.keys is not None
    texts = val.metadata["real_labels"]
    keep = np.flatnonzero(texts != "")
    if not keep.size:
        raise UserError(f"{val.root}: no file is named ILSVRC2012_val_<number>, by which ReaL labels are looked up")
    first = np.asarray([int(str(texts[i]).split()[0]) for i in keep], dtype=np.int32)
    rows = Rows(tuple(val.rows.paths[i] for i in keep), first, val.rows.sizes[keep])
    metadata = {"label_set": texts[keep], "val_label": val.rows.labels[keep].astype(np.int64)}
    keys = tuple(val.keys[i] for i in keep)
    return Found(root=val.root, rows=rows, layout=val.layout, keys=keys, metadata=metadata)


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


RECIPES = (
    Recipe(
        name=VAL,
        title="ImageNet-1k validation set",
        role="id",
        folders=(
            "imagenet-val",
            "imagenet",
            "ILSVRC2012",
            "ILSVRC2012_img_val",
            "imagenet-1k",
            "imagenet2012",
            "ILSVRC",
        ),
        expected=(50_000,),
        read=read_val,
        note="flat copies need a label file; rows are keyed by file name",
    ),
    Recipe(
        name="imagenet-real",
        title="ImageNet-val with ReaL labels",
        role="id",
        folders=(
            "imagenet-val",
            "imagenet",
            "ILSVRC2012",
            "ILSVRC2012_img_val",
            "imagenet-1k",
            "imagenet2012",
            "ILSVRC",
        ),
        expected=(46_837,),
        read=read_real,
        packable=False,
        note="right = any label of label_set; the 3,163 images without ReaL labels are left out",
    ),
    Recipe(
        name="imagenet-train",
        title="ImageNet-1k training set, as reference",
        role="reference",
        folders=("imagenet-train", "ILSVRC2012_img_train", "imagenet", "ILSVRC2012", "imagenet-1k", "ILSVRC"),
        expected=(1_281_167,),
        read=class_folders("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train"),
        note="streamed whole; per_class = 50 images a class are kept as a bank",
    ),
)
