"""Datasets that lie in shards or tables instead of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.class_spaces import ClassSpace
from extract.datasets.base import NO_LABEL, ImageSource
from extract.datasets.folder import Rows
from extract.datasets.labels import label_map
from extract.datasets.spaces import own_space, space_for
from extract.datasets.specs import DatasetSpec


class Packed(NamedTuple):
    """What a packed dataset holds."""

    rows: Rows
    space: ClassSpace | None
    source: ImageSource
    metadata: Mapping[str, NDArray[np.generic]]
    layout: str


def read_packed(spec: DatasetSpec, space: ClassSpace | None = None) -> Packed:
    """Read a dataset of ``reader = "webdataset"`` or ``"huggingface"``.

    Parameters
    ----------
    spec
        Says where it lies, the split, and how labels are read.
    space
        Class space, if it is known before; the spec's otherwise.

    Raises
    ------
    UserError
        Nothing to read, labels that are no classes, or numbers without a class space.
    """
    where = spec.where or str(spec.path)
    if spec.manifest is not None or spec.captions:
        raise UserError(f"{where}: a manifest goes with files; reader = {spec.reader!r} brings its own labels")
    if spec.reader == "webdataset":
        from extract.datasets.shards import read_shards

        shards = read_shards(spec.path, spec.split)
        texts = {text for text in shards.label_texts if text not in ("", "-1")}
        if space is None and (spec.classes or (texts and spec.labels != "none")):
            space = space_for(spec.classes, texts, class_space_name=spec.class_space, where=where)
        return Packed(shards.rows(space, spec.labels, where), space, shards.source, {}, "webdataset shards")
    from extract.datasets.parquet import read_parquet_folder

    table = read_parquet_folder(spec.path, spec.split)
    known = table.labels[table.labels != NO_LABEL]
    if space is None and not spec.classes and table.class_names and spec.labels != "none":
        space = own_space(table.class_names, spec.class_space)
    elif space is None and (spec.classes or (known.size and spec.labels != "none")):
        numbers = {str(number) for number in np.unique(known).tolist()}
        space = space_for(spec.classes, numbers, class_space_name=spec.class_space, where=where)
    labels = table.labels
    if space is None or spec.labels == "none":
        labels = np.full_like(labels, NO_LABEL)
    else:
        label_map({str(number) for number in np.unique(known).tolist()}, space, "index", where=where)
    rows = Rows(table.names, labels, table.sizes)
    return Packed(rows, space, table.source, table.metadata, "Parquet files")
