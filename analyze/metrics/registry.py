"""Every metric of the result table by name, collected from the rows at the end of each file of metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import ModuleType

from analyze.metrics import (
    accuracy,
    agreement,
    calibration,
    calibration_tests,
    classwise,
    clips,
    conformal,
    conformal_checks,
    corruption,
    detection,
    detection_points,
    diversity,
    factors,
    fitted,
    proper_scores,
    retrieval,
    selective,
    selective_areas,
    shape_texture,
    skill,
    smooth_calibration,
    soft_labels,
    top_label,
)
from analyze.metrics.spec import Direction, Metric
from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import Plugin, attach

_FILES: tuple[ModuleType, ...] = (
    accuracy,
    clips,
    calibration,
    calibration_tests,
    smooth_calibration,
    classwise,
    top_label,
    proper_scores,
    skill,
    soft_labels,
    selective,
    selective_areas,
    detection,
    detection_points,
    factors,
    shape_texture,
    agreement,
    diversity,
    conformal,
    conformal_checks,
    corruption,
    retrieval,
    fitted,
)


def collect(rows: Iterable[Metric]) -> dict[str, Metric]:
    """Return rows by name.

    Raises
    ------
    ValueError
        Two rows have one name.
    """
    found: dict[str, Metric] = {}
    for row in rows:
        if row.name in found:
            raise ValueError(f"two metrics are called {row.name!r}")
        found[row.name] = row
    return found


_METRICS = collect(row for file in _FILES for row in file.ROWS)

METRICS: Mapping[str, Metric] = _METRICS
"""Name in the result table -> its row; families under their name with ``{}``; plug-ins join at the end."""

PLUGGED: dict[str, Metric] = {}
"""Those of ``METRICS`` that are plug-ins."""

STATISTICS = {
    "confidences": "confidence",
    "labels": "label",
    "label_ranks": "label_rank",
    "label_log_probabilities": "label_log_probability",
    "entropies": "entropy",
    "margins": "margin",
    "sums_of_squares": "sum_squares",
    "max_logits": "max_logit",
    "log_sum_exps": "log_sum_exp",
}
"""What a plug-in's function may take, (n,) each, besides ``correct`` and ``predictions`` -> the per-image statistic."""

COLUMN_METRICS: Mapping[str, Metric] = {name: row for name, row in METRICS.items() if row.function is not None}
"""The metrics that are functions of columns."""

_FAMILIES = {
    re.compile(re.escape(name).replace(r"\{\}", r"(\d+(?:\.\d+)?)")): row
    for name, row in METRICS.items()
    if "{}" in name
}


def find_metric(name: str) -> Metric | None:
    """Return a metric's row, or that of its family with the number filled in; None for a name from elsewhere."""
    if name in METRICS and "{}" not in name:
        return METRICS[name]
    for pattern, row in _FAMILIES.items():
        if match := pattern.fullmatch(name):
            return replace(row, name=name, title=row.title.format(match[1]))
    return None


def version(metric: str) -> int:
    """Return the version of a metric; 1 for a name from elsewhere."""
    row = find_metric(metric)
    return row.version if row is not None else 1


def direction(metric: str) -> Direction:
    """Return which way a metric is better; ``none`` for a name from elsewhere."""
    row = find_metric(metric)
    return row.direction if row is not None else "none"


def _add(plugin: Plugin) -> None:
    """Take a metric from outside: a row whose function takes per-image columns."""
    row, taken = plugin.item, (*STATISTICS, "correct", "predictions")
    if not isinstance(row, Metric):
        raise UserError(f"{plugin.name!r} is not a Metric")
    if find_metric(row.name) is not None or not re.fullmatch(r"[a-z][a-z0-9_]*", row.name):
        raise UserError(
            f"the metric {row.name!r} exists already, or its name is not of small letters, digits and _; give yours"
            " another name"
        )
    if not callable(row.function) or not row.columns:
        raise UserError(f"the metric {row.name!r} has no function, or no columns that it takes")
    for column in row.columns:
        if column not in taken:
            raise UserError(
                f"the metric {row.name!r} takes {column!r}{nearest(column, taken)}; there are {', '.join(taken)}"
            )
    _METRICS[row.name] = PLUGGED[row.name] = row


attach("metrics", _add)
