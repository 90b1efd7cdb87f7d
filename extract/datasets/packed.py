"""Datasets that lie in shards or tables instead of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from extract.classes.spaces import IMAGENET_1K, ClassSpace, class_space
from extract.datasets.base import NO_LABEL, ImageSource
from extract.datasets.columns import no_label, wants_labels
from extract.datasets.folder import Rows
from extract.datasets.labels import by_index, by_name, by_wnid, label_map, plain
from extract.datasets.listing import is_folder
from extract.datasets.spaces import own_space, space_for
from extract.datasets.specs import DatasetSpec

_SUFFIX_OF = {".parquet": "huggingface", ".arrow": "huggingface", ".tar": "webdataset"}
_DEPTH = 3
_MANY = 300
"""A folder with more entries of folders than this holds classes, not shards."""


class Packed(NamedTuple):
    """What a packed dataset holds."""

    rows: Rows
    space: ClassSpace | None
    source: ImageSource
    metadata: Mapping[str, NDArray[np.generic]]
    layout: str


def packed_kind(folder: Path) -> str:
    """Return the reader that a folder's shards or tables need, or an empty string where it holds neither.

    Only names are looked at, three levels deep. Tables go before shards.
    """
    level, found = [folder], set[str]()
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for place in level:
            try:
                with os.scandir(place) as entries:
                    listed = list(entries)
            except OSError:
                continue
            found |= {Path(entry.name).suffix for entry in listed} & set(_SUFFIX_OF)
            folders = [Path(entry.path) for entry in listed if is_folder(entry) and not entry.name.startswith(".")]
            below += folders if len(folders) <= _MANY else []
        level = below
    return next((reader for suffix, reader in _SUFFIX_OF.items() if suffix in found), "")


def read_packed(spec: DatasetSpec, space: ClassSpace | None = None, splits: Sequence[str] = ()) -> Packed:
    """Read a dataset of ``reader = "webdataset"`` or ``"huggingface"``.

    Parameters
    ----------
    spec
        Says where it lies, the split, and how labels are read.
    space
        Class space, if it is known before; the spec's otherwise.
    splits
        Words looked for among several splits, if the spec names none.

    Raises
    ------
    UserError
        Nothing to read, labels that are not classes, or numbers without a class space.
    """
    where = spec.where or str(spec.path)
    if spec.manifest is not None or spec.captions:
        raise UserError(f"{where}: a manifest needs image files; reader = {spec.reader!r} has its own labels")
    if spec.reader == "webdataset":
        return _shards(spec, space, splits, where)
    from extract.datasets.huggingface import read_huggingface

    table = read_huggingface(
        spec.path,
        spec.split,
        splits,
        label_column=spec.label_column,
        allow_count_mismatch=spec.allow_count_mismatch,
    )
    if not table.has_labels and table.metadata and wants_labels(spec):
        raise no_label(list(table.metadata), where)
    space, labels = _labelled(spec, table.labels, table.class_names, space, where)
    rows = Rows(table.names, labels, table.sizes)
    return Packed(rows, space, table.source, table.metadata, table.layout)


def _shards(spec: DatasetSpec, space: ClassSpace | None, splits: Sequence[str], where: str) -> Packed:
    from extract.datasets.shards import read_shards

    shards = read_shards(
        spec.path,
        spec.split,
        splits,
        label_column=spec.label_column,
        allow_count_mismatch=spec.allow_count_mismatch,
    )
    if not any(shards.label_texts) and shards.parts and wants_labels(spec):
        raise no_label(shards.parts, where, "samples' parts")
    texts = {text for text in shards.label_texts if text not in ("", "-1")}
    layout = "webdataset shards"
    if shards.class_names and spec.labels in ("auto", "index") and all(text.isdecimal() for text in texts):
        numbers = np.asarray([int(text) if text.isdecimal() else NO_LABEL for text in shards.label_texts], np.int32)
        space, labels = _labelled(spec, numbers, shards.class_names, space, where)
        return Packed(Rows(shards.names, labels, shards.source.size), space, shards.source, {}, layout)
    if space is None and (spec.classes or (texts and spec.labels != "none")):
        space = space_for(spec.classes, texts, class_space_name=spec.class_space, where=where)
    return Packed(shards.rows(space, spec.labels, where), space, shards.source, {}, layout)


def _labelled(
    spec: DatasetSpec, numbers: NDArray[np.int32], names: tuple[str, ...], space: ClassSpace | None, where: str
) -> tuple[ClassSpace | None, NDArray[np.int32]]:
    """Return the class space, and label numbers (n,) that count ``names`` (if the dataset has them) in it."""
    none = np.full_like(numbers, NO_LABEL)
    known = np.unique(numbers[numbers != NO_LABEL])
    if spec.labels == "none" or not known.size:
        return (space_for(spec.classes, (), where=where) if space is None and spec.classes else space), none
    if names and not 0 <= int(known[0]) <= int(known[-1]) < len(names):
        raise UserError(f"{where}: label {int(known[-1])} is beyond the {len(names)} classes that it names")
    if space is None and names and spec.classes in ("", "folders"):
        space = _space_of(names, spec)
    elif space is None:
        texts = {str(number) for number in known.tolist()}
        space = space_for(spec.classes, texts, class_space_name=spec.class_space, where=where)
    index = _index_of(names, space, spec.labels, where)
    if index is not None:
        return space, np.where(numbers == NO_LABEL, NO_LABEL, index[numbers]).astype(np.int32)
    label_map({str(number) for number in known.tolist()}, space, "index", where=where)
    return space, numbers


def _space_of(names: tuple[str, ...], spec: DatasetSpec) -> ClassSpace:
    """Return ImageNet-1k if all of the names are its classes (all of its indices, if they are numbers); else their
    own.
    """
    imagenet = class_space(IMAGENET_1K)
    readings = [by_wnid, by_name, *([by_index] if len(names) == len(imagenet) else [])]
    if spec.classes == "" and any(len(read(names, imagenet)) == len(names) for read in readings):
        return imagenet
    return own_space(names, spec.class_space)


def _index_of(names: tuple[str, ...], space: ClassSpace, kind: str, where: str) -> NDArray[np.int32] | None:
    """Return the class of each of the dataset's own class numbers, by its name; None: numbers are classes already.

    A set made from class folders numbers them by rank: 200 WordNet ids from 0 to 199, or ImageNetV2's folders as
    0, 1, 10, 100 ... Such numbers mean nothing but their names.
    """
    if not names or kind == "index" or names == space.names:
        return None
    try:
        found = label_map(names, space, kind, where=where)
    except UserError:
        if kind != "auto":
            raise
        if _in_the_same_order(names, space):
            return None
        raise UserError(
            f"{where}: its labels count {counted(len(names), 'class', 'classes')} of its own"
            f" ({names[0]!r}, {names[-1]!r} ...), which are"
            f' not those of {space.id}; labels = "index" takes the numbers for its indices'
        ) from None
    return np.asarray([found[name] for name in names], dtype=np.int32)


def _in_the_same_order(names: tuple[str, ...], space: ClassSpace) -> bool:
    """Return whether names that are spelled otherwise ("tench, Tinca tinca") are the space's classes in its order.

    As many names as classes; of their first synonyms a quarter at least are classes, and nearly all of those stand
    at their own index.
    """
    if len(names) != len(space):
        return False
    first = [plain(name.partition(",")[0]) for name in names]
    index = by_name(first, space)
    matched = [index[name] == number for number, name in enumerate(first) if name in index]
    return len(matched) >= len(names) / 4 and sum(matched) >= 0.95 * len(matched)
