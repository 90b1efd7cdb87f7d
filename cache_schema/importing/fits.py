"""What OOD detectors are fitted on, from somebody's own arrays: statistics of a training set, and a last layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.errors import UserError
from cache_schema.importing.outputs import filled, ids_of
from cache_schema.importing.own_arrays import OwnArrays
from cache_schema.kinds.heads import HeadStore, write_head
from cache_schema.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.kinds.references import ReferenceStore, write_reference
from cache_schema.records import DatasetCard, ModelCard

BLOCK_ROWS = 8192


def import_reference(
    file: OwnArrays,
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    per_class: int = 50,
    backend: str = "zarr",
    overwrite: bool = False,
) -> ReferenceStore:
    """Make a reference store of a training set's outputs; its rows go by once and are not kept.

    Parameters
    ----------
    file
        Holds ``logits`` (n, C), ``features`` (n, D) and ``labels`` (n,), and perhaps ``image_ids`` (n,).
    cache_path, model, dataset, backend, overwrite
        As for :func:`cache_schema.write_reference`.
    per_class
        Rows of each class in the bank.

    Raises
    ------
    UserError
        An array is missing, or shapes disagree.
    """
    for name in ("logits", "features", "labels"):
        if name not in file.names:
            needs = "a training set (--role reference) needs logits, features and labels"
            raise UserError(f"{file.path} holds no {name}: {needs}; it has {file.listed()}")
    shapes = {name: file.shape_and_dtype(name)[0] for name in ("logits", "features", "labels")}
    n = shapes["labels"][0] if shapes["labels"] else 0
    if [len(shapes[name]) for name in shapes] != [2, 2, 1] or any(shape[0] != n for shape in shapes.values()) or not n:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"{file.path}: the shapes disagree: {told}; they should be (n, C), (n, D), (n,)")
    labels = file.read("labels")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{file.path}: labels are {labels.dtype}, not class indices (integers)")
    ids = ids_of(file, n)
    sums = ReferenceAccumulator(shapes["logits"][1], shapes["features"][1], per_class=per_class)
    start = 0
    features = file.blocks("features", BLOCK_ROWS)
    for logits in file.blocks("logits", BLOCK_ROWS):
        stop = start + len(logits)
        sums.update(next(features), logits, labels[start:stop].astype(np.int64), ids=ids[start:stop])
        start = stop
    return write_reference(
        cache_path,
        model=model,
        dataset=replace(filled(dataset, ids, labels, sums.n_classes), role="reference"),
        arrays=sums.arrays(),
        backend=backend,
        record={"imported_from": file.path.name, "reference": dict(sums.options())},
        overwrite=overwrite,
    )


def import_head(
    file: OwnArrays,
    cache_path: Path | str,
    *,
    model: ModelCard,
    class_space: str,
    backend: str = "zarr",
    overwrite: bool = False,
) -> HeadStore:
    """Make a head store of a last layer.

    Parameters
    ----------
    file
        Holds ``weight`` (C, D), and perhaps ``bias`` (C,).
    cache_path, model, backend, overwrite
        As for :func:`cache_schema.write_head`.
    class_space
        Name of the classes, as the predictions have it.

    Raises
    ------
    UserError
        Shapes disagree, or a number is not finite.
    """
    weight: Any = file.read("weight")
    if weight.ndim != 2:
        raise UserError(f"{file.path}: weight is of shape {weight.shape}, not (classes, width)")
    return write_head(
        cache_path,
        model=model,
        class_space=class_space,
        class_names=[str(i) for i in range(len(weight))],
        weight=weight,
        bias=file.read("bias") if "bias" in file.names else None,
        backend=backend,
        record={"imported_from": file.path.name},
        overwrite=overwrite,
    )
