"""Metrics from outside the package: functions of per-image columns, with bootstrap intervals where one is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.metrics.registry import PLUGGED, STATISTICS
from analyze.metrics.spec import Metric
from analyze.predictions.summaries import Summary
from analyze.suites.base import Case, Number, Suite, bounded, confidences_of, without
from closerlook_common.errors import CloserlookError, UserError


def suites() -> dict[str, Suite]:
    """Return a suite for each metric that was plugged in; its name is the metric's."""
    return {name: Suite(name, "dataset", (), (name,), partial(_numbers, row)) for name, row in PLUGGED.items()}


def _numbers(row: Metric, case: Case) -> Iterator[Number]:
    rows = case.labelled()
    if not len(rows):
        yield from without((row.name,), f"dataset {case.summary.dataset.id} has no labelled image that could be read")
        return
    try:
        columns = [column_of(rows, name) for name in row.columns]
        value = value_of(row, columns)
    except CloserlookError as error:
        yield Number(metric=row.name, reason=str(error))
        return
    yield bounded(
        Number(metric=row.name, value=value, n=len(rows)), case, partial(_replicates, row, columns), len(rows)
    )


def column_of(rows: Summary, name: str) -> NDArray[Any]:
    """Return a column that a plug-in's function takes, (n,)."""
    if name == "correct":
        return np.asarray(rows["label_rank"] == 0)
    if name == "predictions":
        return np.asarray(rows.prediction)
    column = rows[STATISTICS[name]]
    return confidences_of(column) if name == "confidences" else column


def value_of(row: Metric, columns: list[NDArray[Any]]) -> float:
    """Return a metric's value, checked.

    Raises
    ------
    UserError
        The function fails, or gives no finite number within the metric's range.
    """
    assert row.function is not None
    try:
        value = float(row.function(*(column.copy() for column in columns)))
    except CloserlookError:
        raise
    except Exception as error:  # whatever the plug-in's function raises
        raise UserError(f"{row.name} fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
    if not math.isfinite(value):
        raise UserError(f"{row.name} gives {value}, which is not a number to keep")
    if not row.low <= value <= row.high:
        raise UserError(f"{row.name} gives {value:g}, outside its range from {row.low:g} to {row.high:g}")
    return value


def _replicates(row: Metric, columns: list[NDArray[Any]], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return the metric on each resample: weights (n, R) -> (R,)."""
    drawn = (np.repeat(np.arange(len(weights)), weights[:, r]) for r in range(weights.shape[1]))
    return np.array([value_of(row, [column[chosen] for column in columns]) for chosen in drawn])
