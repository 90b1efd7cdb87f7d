"""Make prediction stores of a user's own outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.identities import identity
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import ROW_NUMBERS, checked_labels, row_numbers
from cache_schema.importing.own_arrays import OwnArrays
from cache_schema.importing.texts import image_names, plain_texts
from cache_schema.reading.store import PredictionStore
from cache_schema.writing.writer import StoreWriter
from closerlook_common.errors import UserError, nearest

KINDS = ("logits", "log_probabilities", "probabilities")
"""Kinds of outputs; the array's name says which, nothing is guessed."""

BLOCK_BYTES = 32 << 20
NAMED = 5
"""Largest number of rows named in a message."""

SUM_TOLERANCE = 1e-2
"""Largest difference of a row's sum of probabilities from 1; float16 of 21,843 classes stays below."""


def import_arrays(
    file: OwnArrays,
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    backend: str = "zarr",
    features_dtype: str = "float16",
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> PredictionStore:
    """Make a prediction store of a user's arrays.

    Parameters
    ----------
    file
        Holds one of ``logits``, ``log_probabilities``, ``probabilities`` of shape (n, C); ``labels`` (n,),
        except for OOD sets; optionally ``features`` (n, D), ``image_ids`` (n,), ``valid`` (n,) and
        ``metadata.<name>`` (n,).
    cache_path, backend, features_dtype, overwrite
        As for :func:`cache_schema.write_store`.
    model, dataset
        The cards; ``digest``, ``n_images`` and ``n_classes`` of the dataset are filled in if
        missing.
    report
        Called with one line if rows are not used.

    Raises
    ------
    UserError
        An array or row is wrong; the message names it and what it should be.
    """
    path = file.path
    kind = _kind_of(file)
    shape, dtype = file.shape_and_dtype(kind)
    if len(shape) != 2 or dtype.kind != "f":
        raise UserError(f"{path}: {kind} are {dtype} of shape {shape}, not floats of (images, classes)")
    n, c = shape
    if not n or not c:
        raise UserError(f"{path}: {kind} are of shape {shape}, so there is nothing to store")
    width = None
    if "features" in file.names:
        features_shape, features_kind = file.shape_and_dtype("features")
        if len(features_shape) != 2 or features_shape[0] != n or features_kind.kind != "f":
            raise UserError(f"{path}: features are {features_kind} of shape {features_shape}, not ({n}, width)")
        width = features_shape[1]
    labels = _labels(file, n, dataset)
    ids, named = ids_of(file, n)
    valid = None
    if "valid" in file.names:
        valid_shape, valid_dtype = file.shape_and_dtype("valid")
        if valid_shape != (n,) or valid_dtype != np.bool_:
            raise UserError(f"{path}: valid is {valid_dtype} of shape {valid_shape}, not bool of ({n},)")
        valid = file.read("valid")
    for name in file.names:
        if name.startswith("metadata.") and file.shape_and_dtype(name)[0] != (n,):
            raise UserError(f"{path}: {name} is of shape {file.shape_and_dtype(name)[0]}, not ({n},)")
    metadata = {
        name.removeprefix("metadata."): plain_texts(file.read(name), f"{path}: {name}")
        for name in file.names
        if name.startswith("metadata.")
    }
    try:
        checked_labels(labels, n, dataset, c)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if dataset.class_mask is not None:
        outside = (labels >= 0) & ~np.isin(labels, dataset.class_mask)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            report(
                f"{path}: {outside.sum():,} of {n:,} images have labels outside the class mask and are not used: row"
                f" {row} has label {labels[row]}"
            )
    card = filled(dataset, ids, labels, c)
    writer = StoreWriter(
        cache_path,
        model=model,
        dataset=card,
        n_images=n,
        n_classes=c,
        feature_width=width,
        image_ids=ids,
        labels=labels,
        metadata=metadata,
        logits_kind="logits" if kind == "logits" else "log_probabilities",
        features_dtype=features_dtype,
        backend=backend,
        record={"imported_from": path.name, "imported_as": kind, **named},
        overwrite=overwrite,
    )
    looks_like_softmax = kind == "logits"
    with writer:
        rows = max(1, min(8192, BLOCK_BYTES // (c * 8)))
        features = file.blocks("features", rows) if width is not None else None
        start = readable = 0
        for block in file.blocks(kind, rows):
            keep = None if valid is None else valid[start : start + len(block)]
            logits = _as_logits(block, kind, path, start, keep)
            if looks_like_softmax and _readable(block, keep).any():
                looks_like_softmax = c > 1 and _is_softmax(block, keep)
            try:
                writer.append(logits, next(features) if features is not None else None, keep)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            readable += int(_readable(logits, keep).sum())
            start += len(block)
        if not readable:
            raise UserError(f"{path}: no row of {kind} is free of NaN and valid, so there is nothing to store")
    if looks_like_softmax:
        report(
            f"{path}: every row of logits lies between 0 and 1 and sums to 1. If these are probabilities, import them"
            " as such: name the array (or columns) probabilities, or give `kind=probabilities` for an .npy"
        )
    _report_lost(writer.store, path, report)
    return writer.store


def _report_lost(store: PredictionStore, path: Path, report: Callable[[str], None]) -> None:
    """Name the rows without output: those that hold NaN, or that ``valid`` marks."""
    lost = np.flatnonzero(~store.valid)
    if lost.size:
        named = ", ".join(f"row {row} ({store.image_ids[row]})" for row in lost[:NAMED])
        more = " ..." if lost.size > NAMED else ""
        report(f"{path}: {lost.size:,} of {len(store):,} images have no output and are not used: {named}{more}")


def _readable(block: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return ~np.isnan(block).any(axis=1) if valid is None else valid


def _is_softmax(block: NDArray[Any], valid: NDArray[np.bool_] | None) -> bool:
    """Return whether all valid rows look like probabilities."""
    values = block[_readable(block, valid)].astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        return False
    return bool((np.abs(values.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def _kind_of(file: OwnArrays) -> str:
    found = [kind for kind in KINDS if kind in file.names]
    if len(found) != 1:
        what = f"has {' and '.join(found)}; keep the one" if found else f"has {file.listed()}; name the array by what"
        raise UserError(f"{file.path} must hold exactly one of {', '.join(KINDS)}: it {what} the outputs are")
    return found[0]


def labels_of(file: OwnArrays, n: int) -> NDArray[Any]:
    """Return the labels of n images; UserError if they are not integers."""
    shape, dtype = file.shape_and_dtype("labels")
    if dtype.kind not in "iu" or shape != (n,):
        raise UserError(f"{file.path}: labels are {dtype} of shape {shape}, not {n} class indices (integers)")
    return file.read("labels")


def _labels(file: OwnArrays, n: int, dataset: DatasetCard) -> NDArray[Any]:
    if "labels" in file.names:
        return labels_of(file, n)
    if dataset.role == "ood":
        return np.full(n, -1, np.int32)
    raise UserError(f"{file.path} holds no labels{nearest('labels', file.names)}; add them, or give `role=ood`")


def ids_of(file: OwnArrays, n: int) -> tuple[list[str], dict[str, str]]:
    """Return the ids of n images, and the entry of the record that says whether they are names or row numbers."""
    if "image_ids" not in file.names:
        return row_numbers(n), {"image_ids": ROW_NUMBERS}
    shape, dtype = file.shape_and_dtype("image_ids")
    if shape != (n,):
        raise UserError(f"{file.path}: image_ids are {dtype} of shape {shape}, not {n} names")
    return image_names(file.read("image_ids"), f"{file.path}: image_ids"), {"image_ids": "given"}


def filled(dataset: DatasetCard, ids: list[str], labels: NDArray[Any], n_classes: int | None) -> DatasetCard:
    """Complete a dataset's card; its digest is of ids and labels, to match equal rows of two models."""
    digest = dataset.digest or identity({"image_ids": ids, "labels": labels.tolist()})
    return replace(
        dataset,
        digest=digest,
        n_images=len(ids),
        n_classes=dataset.n_classes if dataset.n_classes is not None else n_classes,
    )


def _as_logits(block: NDArray[Any], kind: str, path: Path, start: int, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Check that a block is what its name says, and return it, probabilities as their logarithm."""
    if kind == "logits":
        return block
    values = block.astype(np.float64)
    looked_at = ~np.isnan(values).any(axis=1)
    if valid is not None:
        looked_at &= valid
    high = 1 + SUM_TOLERANCE if kind == "probabilities" else SUM_TOLERANCE
    low = 0.0 if kind == "probabilities" else -np.inf
    bad = looked_at & ((values < low) | (values > high)).any(axis=1)
    with np.errstate(over="ignore"):
        totals = (values if kind == "probabilities" else np.exp(values)).sum(axis=1)
    bad |= looked_at & (np.abs(totals - 1) > SUM_TOLERANCE)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"{path}: row {start + i} of {kind} has values from {values[i].min():.4g} to"
            f" {values[i].max():.4g} and probabilities that sum to {totals[i]:.4g};"
            f" these are not {kind}; name the array by what it holds"
        )
    if kind == "log_probabilities":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: NDArray[np.float64] = np.log(values)
    return logs
