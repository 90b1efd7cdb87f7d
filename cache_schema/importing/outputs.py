"""Makes stores of outputs that somebody else computed: an ``.npz``, CSV or Parquet in, a published store
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError, nearest
from cache_schema.identities import identity
from cache_schema.importing.own_arrays import OwnArrays
from cache_schema.kinds.summaries import SummaryStore, write_summary
from cache_schema.records import DatasetCard, ModelCard
from cache_schema.row_rules import checked_ids, checked_labels
from cache_schema.store import PredictionStore
from cache_schema.writer import StoreWriter

KINDS = ("logits", "log_probabilities", "probabilities")
"""What the outputs in an ``.npz`` can be; the array's name says which, nothing is guessed."""

TABLE_COLUMNS = ("image_id", "label", "predicted", "confidence")
OTHER_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image_id": ("image", "filename", "file_name", "file", "path", "id"),
    "label": ("target", "class", "y_true"),
    "predicted": ("prediction", "pred", "y_pred"),
    "confidence": ("conf", "probability"),
}
"""Column -> what others call the same thing, taken where the column itself is not there."""

BLOCK_BYTES = 32 << 20
SUM_TOLERANCE = 1e-2
"""How far the probabilities of a row may sum from 1: float16 of 21,843 classes stays below."""


def import_arrays(
    file: OwnArrays,
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    backend: str = "zarr",
    features_dtype: str = "float16",
    overwrite: bool = False,
) -> PredictionStore:
    """Make a prediction store of somebody's arrays.

    Parameters
    ----------
    file
        Holds one of ``logits``, ``log_probabilities``, ``probabilities`` of shape (n, C); ``labels`` (n,),
        except for OOD sets; optionally ``features`` (n, D), ``image_ids`` (n,), ``valid`` (n,) and
        ``metadata.<name>`` (n,).
    cache_path, backend, features_dtype, overwrite
        As for :func:`cache_schema.write_store`.
    model, dataset
        The cards; ``digest``, ``n_images`` and ``n_classes`` of the dataset are filled in where they are
        missing.

    Raises
    ------
    UserError
        Names the array or row and what it should be.
    """
    path = file.path
    kind = _kind_of(file)
    shape, dtype = file.shape_and_dtype(kind)
    if len(shape) != 2 or dtype.kind != "f":
        raise UserError(f"{path}: {kind} are {dtype} of shape {shape}, not floats of (images, classes)")
    n, c = shape
    width = None
    if "features" in file.names:
        features_shape, features_kind = file.shape_and_dtype("features")
        if len(features_shape) != 2 or features_shape[0] != n or features_kind.kind != "f":
            raise UserError(
                f"{path}: features are {features_kind} of shape {features_shape}, not ({n}, width)"
            )
        width = features_shape[1]
    labels = _labels(file, n, dataset)
    ids = ids_of(file, n)
    valid = file.read("valid") if "valid" in file.names else None
    if valid is not None and (valid.shape != (n,) or valid.dtype != np.bool_):
        raise UserError(f"{path}: valid is {valid.dtype} of shape {valid.shape}, not bool of ({n},)")
    metadata = {
        name.removeprefix("metadata."): file.read(name)
        for name in file.names
        if name.startswith("metadata.")
    }
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
        record={"imported_from": path.name, "imported_as": kind},
        overwrite=overwrite,
    )
    with writer:
        rows = max(1, min(8192, BLOCK_BYTES // (c * 8)))
        features = file.blocks("features", rows) if width is not None else None
        start = 0
        for block in file.blocks(kind, rows):
            keep = None if valid is None else valid[start : start + len(block)]
            logits = _as_logits(block, kind, path, start, keep)
            writer.append(logits, next(features) if features is not None else None, keep)
            start += len(block)
    return writer.store


def _kind_of(file: OwnArrays) -> str:
    found = [kind for kind in KINDS if kind in file.names]
    if len(found) != 1:
        what = (
            f"has {' and '.join(found)}; keep the one"
            if found
            else f"has {file.listed()}; name the array by what"
        )
        raise UserError(f"{file.path} must hold exactly one of {', '.join(KINDS)}: it {what} the outputs are")
    return found[0]


def _labels(file: OwnArrays, n: int, dataset: DatasetCard) -> NDArray[Any]:
    if "labels" in file.names:
        return file.read("labels")
    if dataset.role == "ood":
        return np.full(n, -1, np.int32)
    raise UserError(
        f"{file.path} holds no labels{nearest('labels', file.names)}; add them, or say --role ood"
    )


def ids_of(file: OwnArrays, n: int) -> list[str]:
    """Return the names of n images; their numbers where the file has none."""
    return [str(item) for item in (file.read("image_ids") if "image_ids" in file.names else range(n))]


def filled(dataset: DatasetCard, ids: list[str], labels: NDArray[Any], n_classes: int | None) -> DatasetCard:
    """Complete a dataset's card; the digest is of ids and labels, so that equal rows of two models can be
    matched.
    """
    digest = dataset.digest or identity({"image_ids": ids, "labels": labels.tolist()})
    return replace(
        dataset,
        digest=digest,
        n_images=len(ids),
        n_classes=dataset.n_classes if dataset.n_classes is not None else n_classes,
    )


def _as_logits(
    block: NDArray[Any], kind: str, path: Path, start: int, valid: NDArray[np.bool_] | None
) -> NDArray[Any]:
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
            f" these are no {kind}, name the array by what it holds"
        )
    if kind == "log_probabilities":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: NDArray[np.float64] = np.log(values)
    return logs


def import_table(
    path: Path,
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    backend: str = "zarr",
    overwrite: bool = False,
) -> SummaryStore:
    """Make a summary store of a CSV or Parquet file with ``image_id``, ``label``, ``predicted``,
    ``confidence``.

    Parameters
    ----------
    path
        ``.csv`` or ``.parquet``. Labels and predictions are class indices (label -1 for none), the confidence
        is a probability. Other columns are kept as ``metadata.<name>``.
    cache_path, model, dataset, backend, overwrite
        As for :func:`import_arrays`.

    Raises
    ------
    UserError
        Names the column or row and what it should be.
    """
    frame = _read_table(path)
    frame = frame.rename(_renamed(frame.columns))
    n = len(frame)
    if n == 0:
        raise UserError(f"{path} has no rows, there is nothing to store")
    for name in TABLE_COLUMNS:
        if name not in frame.columns:
            raise UserError(
                f"{path} has no column {name!r}{nearest(name, frame.columns)}; it has {frame.columns}"
            )
        nulls = frame[name].is_null()
        if nulls.any():
            raise UserError(f"{path}: column {name!r} is empty in row {nulls.arg_true()[0]}")
    ids = checked_ids([str(value) for value in frame["image_id"]], n, dataset.id)
    labels = checked_labels(_integers(frame, "label", path), n, dataset, None)
    predicted = _integers(frame, "predicted", path)
    if (predicted < 0).any():
        raise UserError(
            f"{path}: row {int(np.flatnonzero(predicted < 0)[0])} is predicted as {predicted.min()}"
        )
    if not frame["confidence"].dtype.is_numeric():
        raise UserError(f"{path}: column 'confidence' is {frame['confidence'].dtype}, not a number")
    confidence = frame["confidence"].to_numpy().astype(np.float64)
    bad = ~((confidence >= 0) & (confidence <= 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"{path}: row {row} has confidence {confidence[row]}; it must be a probability, 0 to 1"
        )
    columns: dict[str, Any] = {
        "image_id": ids,
        "label": labels,
        "predicted": predicted.astype(np.int32),
        "confidence": confidence.astype(np.float32),
    }
    for name in frame.columns:
        if name not in TABLE_COLUMNS:
            columns[f"metadata.{name}"] = _metadata(frame[name])
    return write_summary(
        cache_path,
        model=model,
        dataset=filled(dataset, ids, labels, None),
        columns=columns,
        backend=backend,
        record={"imported_from": path.name},
        overwrite=overwrite,
    )


def _renamed(columns: Sequence[str]) -> dict[str, str]:
    """Return other names of the columns -> this project's."""
    renamed = {}
    for wanted, others in OTHER_COLUMNS.items():
        if wanted not in columns:
            given = next((name for name in columns if name.lower() in (wanted, *others)), None)
            if given is not None:
                renamed[given] = wanted
    return renamed


def _read_table(path: Path) -> Any:
    import polars as pl

    text = dict.fromkeys(("image_id", *OTHER_COLUMNS["image_id"]), pl.String)
    if not path.exists():
        raise UserError(f"no file {path}")
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema_length=None, schema_overrides=text)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _integers(frame: Any, name: str, path: Path) -> NDArray[Any]:
    column = frame[name]
    if not column.dtype.is_integer():
        raise UserError(f"{path}: column {name!r} is {column.dtype}, not class indices (integers)")
    return np.asarray(column.to_numpy())


def _metadata(column: Any) -> Any:
    """Return a further column: numbers and booleans as they are where none is missing, anything else as
    text.
    """
    if column.dtype.is_numeric() or str(column.dtype) == "Boolean":
        if not column.has_nulls():
            return column.to_numpy()
        if column.dtype.is_float():
            return column.fill_null(float("nan")).to_numpy()
    return ["" if value is None else str(value) for value in column]
