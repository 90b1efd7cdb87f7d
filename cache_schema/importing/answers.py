"""Make summary stores of tables with columns ``image_id``, ``label``, ``predicted`` and ``confidence``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import checked_ids, checked_labels, label_limit
from cache_schema.importing.column_names import INDEX_LEFT_OUT, OTHER_COLUMNS, is_index, renamed
from cache_schema.importing.limits import plain
from cache_schema.importing.outputs import NAMED, filled
from cache_schema.importing.tables import listed, metadata_column, not_numeric, read_table, whole_numbers
from cache_schema.importing.texts import texts_of
from cache_schema.reading.kinds.summaries import SummaryStore
from cache_schema.writing.kinds.summaries import write_summary
from closerlook_common.errors import UserError, nearest

TABLE_COLUMNS = ("image_id", "label", "predicted", "confidence")

ROUNDING = 1e-5
"""Largest excess of a probability over 1; rounding of a float32 softmax is smaller."""


def import_table(
    path: Path,
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    backend: str = "zarr",
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> SummaryStore:
    """Make a summary store of a CSV or Parquet file with ``image_id``, ``label``, ``predicted``, ``confidence``.

    Parameters
    ----------
    path
        ``.csv`` or ``.parquet``. Labels and predictions are class indices (label -1 for none; super-classes if
        the dataset has a class map), the confidence is a probability. Other columns are kept as
        ``metadata.<name>``.
    cache_path, model, dataset, backend, overwrite
        As for :func:`cache_schema.importing.outputs.import_arrays`.
    report
        Called with one line for everything that is left out.

    Raises
    ------
    UserError
        A column or row is wrong; the message names it and what it should be.
    """
    frame = read_table(path, text_columns=("image_id", *OTHER_COLUMNS["image_id"]), report=report)
    frame = frame.rename(renamed(frame.columns, OTHER_COLUMNS, str(path)))
    if any(map(is_index, frame.columns)):
        report(f"{path}: {INDEX_LEFT_OUT}")
        frame = frame.drop([name for name in frame.columns if is_index(name)])
    n = len(frame)
    if n == 0:
        raise UserError(f"{path} has no rows, so there is nothing to store")
    for name in TABLE_COLUMNS:
        if name not in frame.columns:
            raise UserError(
                f"{path} has no column {name!r}{nearest(name, map(plain, frame.columns))}; it has {listed(frame)}"
            )
    ids = checked_ids(texts_of(frame["image_id"], f"{path}: column 'image_id'"), n, f"{dataset.id} ({path})")
    labels = checked_labels(whole_numbers(frame, "label", path), n, dataset, dataset.n_classes)
    predicted = whole_numbers(frame, "predicted", path)
    _check_predictions(predicted, labels, dataset, path)
    confidence, valid = _confidence(frame, path)
    if not valid.any():
        raise UserError(f"{path}: column 'confidence' has no numbers")
    if not valid.all():
        lost = ", ".join(f"row {row} ({ids[row]})" for row in np.flatnonzero(~valid)[:NAMED])
        more = " ..." if (~valid).sum() > NAMED else ""
        report(f"{path}: {(~valid).sum():,} of {n:,} images have no confidence and are not used: {lost}{more}")
    columns: dict[str, Any] = {
        "image_id": ids,
        "label": labels,
        "predicted": predicted.astype(np.int32),
        "confidence": confidence.astype(np.float32),
    }
    if not valid.all():
        columns["valid"] = valid
    for name in frame.columns:
        if name not in TABLE_COLUMNS:
            columns[f"metadata.{name}"] = metadata_column(frame[name], path)
    return write_summary(
        cache_path,
        model=model,
        dataset=filled(dataset, ids, labels, None),
        columns=columns,
        backend=backend,
        record={"imported_from": path.name, "image_ids": "given"},
        overwrite=overwrite,
    )


def _check_predictions(
    predicted: NDArray[np.int64], labels: NDArray[np.int32], dataset: DatasetCard, path: Path
) -> None:
    """Refuse predictions and labels that are not classes of the dataset's card."""
    limit = label_limit(dataset, dataset.n_classes)
    top = np.iinfo(np.int32).max if limit is None else limit
    for row in np.flatnonzero((predicted < 0) | (predicted >= top))[:1]:
        what = "super-classes of the class map" if dataset.class_map is not None else "classes"
        there = f"; there are {limit} {what}, 0 to {limit - 1}" if limit is not None else "; classes count from 0"
        raise UserError(f"{path}: row {row} is predicted as {predicted[row]}{there}")
    if dataset.class_mask is None:
        return
    for name, values in (("label", labels), ("predicted", predicted)):
        outside = (values >= 0) & ~np.isin(values, dataset.class_mask)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise UserError(
                f"{path}: row {row} has {name} {values[row]}, which is not among the {len(dataset.class_mask)} classes"
                " of the class mask"
            )


def _confidence(frame: Any, path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probabilities, and which rows have one; values rounded to above 1 become 1."""
    column = frame["confidence"]
    if not column.dtype.is_numeric():
        raise UserError(f"{path}: column 'confidence' {not_numeric(column)}")
    confidence = column.cast(float).fill_null(float("nan")).to_numpy()
    valid = ~np.isnan(confidence)
    bad = valid & ~((confidence >= 0) & (confidence <= 1 + ROUNDING))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"{path}: row {row} has confidence {confidence[row]}; it must be a probability, 0 to 1"
            " (divide percentages by 100, take the softmax of logits)"
        )
    return np.minimum(confidence, 1.0), valid
