"""Read CSV and Parquet tables with one column per class as arrays by this project's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.importing.column_names import INDEX_LEFT_OUT, NUMBERED, OTHER_COLUMNS, is_index, renamed, wide_columns
from cache_schema.importing.tables import metadata_column, not_numeric, read_table, whole_numbers
from cache_schema.importing.texts import texts_of
from closerlook_common.errors import UserError

_ARRAYS = {"image_id": "image_ids", "label": "labels"}


def read_wide_table(
    path: Path, *, kind: str | None, report: Callable[[str], None] = lambda _line: None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a table: outputs and features, ``labels``, ``image_ids``, ``valid``, ``metadata.<name>``.

    Parameters
    ----------
    path
        ``.csv`` or ``.parquet``.
    kind
        Kind of the columns named 0, 1, 2 ..., whose names do not say.
    report
        Called with one line for each column that is left out.

    Raises
    ------
    UserError
        A column is wrong; the message names it, and the row if there is one.
    """
    import polars as pl

    frame = read_table(path, text_columns=("image_id", *OTHER_COLUMNS["image_id"]), report=report)
    arrays: dict[str, NDArray[Any]] = {}
    wide = wide_columns(frame.columns, str(path))
    for held, columns in wide.items():
        if bad := next((name for name in columns if not frame[name].dtype.is_numeric()), None):
            raise UserError(f"{path}: column {bad!r} {not_numeric(frame[bad])}")
        if held == NUMBERED and kind is None:
            raise UserError(
                f"{path}: the {len(columns)} columns called '0', '1' ... do not say what they hold; give `kind`:"
                " logits, probabilities or log_probabilities"
            )
        name = kind if held == NUMBERED and kind is not None else held
        if name in arrays:
            raise UserError(f"{path} holds {name} twice: as columns {columns[0]!r} ... and under another name")
        arrays[name] = frame.select(columns).cast(pl.Float64).to_numpy()
    rest = [name for name in frame.columns if not any(name in columns for columns in wide.values())]
    names = renamed(rest, {name: OTHER_COLUMNS[name] for name in _ARRAYS}, str(path))
    for name in rest:
        if is_index(name) and name not in names:
            report(f"{path}: {INDEX_LEFT_OUT}")
        elif names.get(name) == "image_id":
            arrays["image_ids"] = _texts(frame[name], path)
        elif names.get(name) == "label":
            arrays["labels"] = whole_numbers(frame, name, path)
        elif name == "valid":
            arrays["valid"] = frame[name].to_numpy()
        else:
            values = metadata_column(frame[name], path)
            # Texts as objects: in an array of fixed width every row would take the space of the longest.
            arrays[f"metadata.{name}"] = np.asarray(values, dtype=object) if isinstance(values, list) else values
    return arrays


def _texts(column: Any, path: Path) -> NDArray[Any]:
    if column.dtype.is_float():
        raise UserError(f"{path}: column {column.name!r} is {column.dtype}, which does not name images")
    empty = column.is_null()
    if empty.any():
        raise UserError(f"{path}: column {column.name!r} is empty in row {empty.arg_true()[0]}")
    return np.asarray(texts_of(column, f"{path}: column {column.name!r}"), dtype=object)
