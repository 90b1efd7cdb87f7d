"""The suites by name, and what each metric of the result table is: adding a metric is a function and a row
here.
"""

from __future__ import annotations

from collections.abc import Mapping

from analyze.metrics.registry import METRICS
from analyze.suites import (
    accuracy,
    calibration,
    conformal,
    corruption,
    detection,
    factors,
    selective,
    shape_bias,
    subsets,
)
from analyze.suites.base import Suite
from cache_schema.errors import UserError, nearest

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("accuracy", 3, "dataset", ("accuracy",), accuracy.METRICS, accuracy.run),
        Suite(
            "calibration",
            2,
            "dataset",
            ("calibration", "calibrators", "split"),
            calibration.METRICS,
            calibration.run,
            uses=("id",),
        ),
        Suite("selective", 2, "dataset", ("selective",), selective.METRICS, selective.run),
        Suite(
            "factors",
            2,
            "dataset",
            ("factors", "accuracy", "calibration", "calibrators", "split"),
            factors.METRICS,
            factors.run,
            uses=("id",),
        ),
        Suite("shape-bias", 1, "dataset", ("shape_bias", "accuracy"), shape_bias.METRICS, shape_bias.run),
        Suite(
            "conformal",
            1,
            "dataset",
            ("conformal", "split", "accuracy"),
            conformal.METRICS,
            conformal.run,
            uses=("id",),
        ),
        Suite("subsets", 1, "model", ("accuracy",), subsets.METRICS, subsets.run, uses=("id", "shift")),
        Suite(
            "corruption",
            1,
            "model",
            (),
            corruption.METRICS,
            corruption.run,
            uses=("shift",),
            named=f"{corruption.ALL}-",
        ),
        Suite("detection", 2, "model", ("ood", "split"), detection.METRICS, detection.run, uses=("id", "ood")),
    )
}

_LOWER = (
    "corruption_error",
    "mean_corruption_error",
    "risk_at_coverage",
    "ece_mass",
    "conformal_size",
    "invalid_images",
)
_UNDIRECTED = ("temperature", "vector_scale", "conformal_coverage", "shape_share", "texture_share")
_NAMES = ("worst_class",)
"""Numbers that name something."""


def direction(metric: str) -> str:
    """Return which way a metric is better: ``higher``, ``lower`` or ``none``."""
    if metric in METRICS:
        return METRICS[metric].direction
    if metric.startswith(_LOWER):
        return "lower"
    return "none" if metric.startswith(_UNDIRECTED) or metric in _NAMES else "higher"


def chosen_suites(only: list[str] | None) -> tuple[list[Suite], set[str]]:
    """Return the suites that ``--only`` asks for, and the metrics it names (empty: all of these suites).

    Parameters
    ----------
    only
        Names of suites or of metrics; None for everything.
    """
    if not only:
        return list(SUITES.values()), set()
    owner: dict[str, list[str]] = {}
    for suite in SUITES.values():
        for metric in suite.metrics:
            owner.setdefault(metric, []).append(suite.name)
    suites: dict[str, Suite] = {}
    wanted: set[str] = set()
    whole: set[str] = set()
    for name in only:
        if name in SUITES:
            suites[name] = SUITES[name]
            whole.update(SUITES[name].metrics)
        elif name in owner:
            suites.update({suite: SUITES[suite] for suite in owner[name]})
            wanted.add(name)
        else:
            raise UserError(
                f"no metric or suite {name!r}{nearest(name, [*SUITES, *owner]) or ';'} suites: {', '.join(SUITES)};"
                f" metrics: {', '.join(owner)}"
            )
    return list(suites.values()), (wanted | whole) if wanted else set()
