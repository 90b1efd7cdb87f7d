"""The suites by name, and what each metric of the result table is: adding a metric is a function and a row
here.
"""

from __future__ import annotations

from collections.abc import Mapping

from analyze.suites import accuracy, calibration, detection, selective
from analyze.suites.base import Suite
from cache_schema.errors import UserError, nearest

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("accuracy", 1, "dataset", ("accuracy",), accuracy.METRICS, accuracy.run),
        Suite(
            "calibration",
            1,
            "dataset",
            ("calibration", "calibrators", "split"),
            calibration.METRICS,
            calibration.run,
        ),
        Suite("selective", 1, "dataset", ("selective",), selective.METRICS, selective.run),
        Suite("detection", 1, "model", ("ood", "split"), detection.METRICS, detection.run),
    )
}

LOWER = frozenset(
    {
        "ece",
        "ece_mass",
        "ece_l2",
        "mce",
        "ks_error",
        "smece",
        "nll",
        "brier",
        "classwise_ece",
        "aurc",
        "eaurc",
        "augrc",
        "risk_at_coverage",
        "fpr95_id",
        "fpr95_ood",
        "error_ratio",
        "invalid_images",
        "conformal_size",
    }
)
UNDIRECTED = frozenset(
    {"temperature", "calibration_gap", "shape_bias", "conformal_coverage", "error_consistency"}
)


def direction(metric: str) -> str:
    """Return which way a metric is better: ``higher``, ``lower`` or ``none``."""
    return "lower" if metric in LOWER else "none" if metric in UNDIRECTED else "higher"


def chosen_suites(only: list[str] | None) -> tuple[list[Suite], set[str]]:
    """Return the suites that ``--only`` asks for, and the metrics it names (empty: all of these suites).

    Parameters
    ----------
    only
        Names of suites or of metrics; None for everything.
    """
    if not only:
        return list(SUITES.values()), set()
    owner = {metric: suite.name for suite in SUITES.values() for metric in suite.metrics}
    suites: dict[str, Suite] = {}
    wanted: set[str] = set()
    whole: set[str] = set()
    for name in only:
        if name in SUITES:
            suites[name] = SUITES[name]
            whole.update(SUITES[name].metrics)
        elif name in owner:
            suites[owner[name]] = SUITES[owner[name]]
            wanted.add(name)
        else:
            raise UserError(
                f"no metric or suite {name!r}{nearest(name, [*SUITES, *owner])} Suites: {', '.join(SUITES)}."
                f" Metrics: {', '.join(owner)}."
            )
    return list(suites.values()), (wanted | whole) if wanted else set()
