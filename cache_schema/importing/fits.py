"""Make reference stores and head stores of a user's arrays, for OOD detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import checked_ids
from cache_schema.importing.outputs import filled, ids_of, labels_of
from cache_schema.importing.own_arrays import OwnArrays
from cache_schema.reading.kinds.heads import HeadStore
from cache_schema.reading.kinds.references import ReferenceStore
from cache_schema.writing.kinds.heads import write_head
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.writing.kinds.references import write_reference
from cache_schema.writing.kinds.writing import finite_floats
from closerlook_common.errors import UserError

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
    report: Callable[[str], None] = lambda _line: None,
) -> ReferenceStore:
    """Make a reference store of a training set's outputs, in one pass over its rows.

    Parameters
    ----------
    file
        Holds ``logits`` (n, C), ``features`` (n, D) and ``labels`` (n,), optionally ``image_ids`` (n,).
    cache_path, model, dataset, backend, overwrite
        As for :func:`cache_schema.write_reference`.
    per_class
        Rows of each class in the bank.
    report
        Called with one line if rows are not used.

    Raises
    ------
    UserError
        An array is missing, or shapes disagree.
    """
    for name in ("logits", "features", "labels"):
        if name not in file.names:
            needs = "a training set (`role=reference`) needs logits, features and labels"
            raise UserError(f"{file.path} holds no {name}: {needs}; it has {file.listed()}")
    described = {name: file.shape_and_dtype(name) for name in ("logits", "features", "labels")}
    shapes = {name: shape for name, (shape, _) in described.items()}
    n = shapes["labels"][0] if shapes["labels"] else 0
    if [len(shapes[name]) for name in shapes] != [2, 2, 1] or any(shape[0] != n for shape in shapes.values()) or not n:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"{file.path}: the shapes disagree: {given}; they should be (n, C), (n, D), (n,)")
    for name in ("logits", "features"):
        if described[name][1].kind != "f":
            raise UserError(f"{file.path}: {name} are {described[name][1]}, not floats")
    labels = labels_of(file, n)
    bad = (labels < -1) | (labels >= shapes["logits"][1])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        limit = shapes["logits"][1] - 1
        raise UserError(f"{file.path}: row {row} has label {labels[row]}; labels are -1 (none) to {limit}")
    ids, named = ids_of(file, n)
    checked_ids(ids, n, dataset.id)
    sums = ReferenceAccumulator(shapes["logits"][1], shapes["features"][1], per_class=per_class)
    start = 0
    features = file.blocks("features", BLOCK_ROWS)
    for logits in file.blocks("logits", BLOCK_ROWS):
        stop = start + len(logits)
        sums.update(next(features), logits, labels[start:stop].astype(np.int64), ids=ids[start:stop])
        start = stop
    if sums.n == 0:
        raise UserError(f"{file.path}: no row has a label and finite numbers, so there is nothing to fit on")
    if sums.skipped:
        report(f"{file.path}: {sums.skipped:,} of {n:,} rows have no label, NaN or infinity, and are not used")
    return write_reference(
        cache_path,
        model=model,
        dataset=replace(filled(dataset, ids, labels, sums.n_classes), role="reference"),
        arrays=sums.arrays(),
        backend=backend,
        record={"imported_from": file.path.name, "reference": dict(sums.options()), **named},
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
        Holds ``weight`` (C, D), optionally ``bias`` (C,).
    cache_path, model, backend, overwrite
        As for :func:`cache_schema.write_head`.
    class_space
        Name of the class space, as in the predictions.

    Raises
    ------
    UserError
        Shapes disagree, or a value is not finite.
    """
    shape, _ = file.shape_and_dtype("weight")
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{file.path}: weight is of shape {shape}, not (classes, width)")
    if "bias" in file.names and file.shape_and_dtype("bias")[0] != shape[:1]:
        bias_shape = file.shape_and_dtype("bias")[0]
        raise UserError(f"{file.path}: bias is of shape {bias_shape}; a weight of shape {shape} needs ({shape[0]},)")
    weight = finite_floats(f"{file.path}: weight", file.read("weight"), np.float32, 2)
    bias = finite_floats(f"{file.path}: bias", file.read("bias"), np.float32, 1) if "bias" in file.names else None
    return write_head(
        cache_path,
        model=model,
        class_space=class_space,
        class_names=[str(i) for i in range(len(weight))],
        weight=weight,
        bias=bias,
        backend=backend,
        record={"imported_from": file.path.name},
        overwrite=overwrite,
    )
