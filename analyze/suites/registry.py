"""The suites by name, and which of them a choice of metrics asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analyze.fits.registry import calibrators
from analyze.suites import (
    accuracy,
    calibration,
    conformal,
    corruption,
    detection,
    factors,
    further,
    plugged,
    selective,
    shape_bias,
    subsets,
)
from analyze.suites.base import Suite
from analyze.suites.scores import fits_of_scores
from closerlook_common.errors import UserError, nearest

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("accuracy", "dataset", ("accuracy",), accuracy.METRICS, accuracy.run),
        Suite(
            "calibration",
            "dataset",
            ("calibration", "calibrators", "split", "accuracy"),
            calibration.METRICS,
            calibration.run,
            fits=calibrators,
            statistics=("classwise",),
            uses=("id",),
        ),
        Suite(
            "further",
            "dataset",
            ("accuracy", "calibration"),
            further.METRICS,
            further.run,
            by_default=False,
        ),
        Suite("selective", "dataset", ("selective",), selective.METRICS, selective.run),
        Suite(
            "factors",
            "dataset",
            ("factors", "accuracy", "calibration", "calibrators", "split"),
            factors.METRICS,
            factors.run,
            fits=lambda: ("temperature",),
            uses=("id",),
        ),
        Suite("shape-bias", "dataset", ("shape_bias", "accuracy"), shape_bias.METRICS, shape_bias.run),
        Suite(
            "conformal",
            "dataset",
            ("conformal", "accuracy"),
            conformal.METRICS,
            conformal.run,
            optional=conformal.GROUPED,
            fits=lambda: tuple(conformal.CALIBRATORS.values()),
            uses=("id",),
        ),
        Suite(
            "subsets",
            "model",
            ("accuracy",),
            subsets.METRICS,
            subsets.run,
            statistics=("subsets",),
            uses=("id", "shift"),
        ),
        Suite(
            "corruption",
            "model",
            (),
            corruption.METRICS,
            corruption.run,
            uses=("shift",),
            named=f"{corruption.ALL}-",
        ),
        Suite(
            "detection",
            "model",
            ("ood",),
            detection.METRICS,
            detection.run,
            optional=tuple(detection.FURTHER),
            fits=fits_of_scores,
            statistics=("gen", "ood_subsets"),
            uses=("id", "ood"),
        ),
    )
}


def all_suites() -> dict[str, Suite]:
    """Return the suites by name, those of plug-ins last."""
    return {**SUITES, **plugged.suites()}


def chosen_suites(only: Sequence[str] | None) -> tuple[list[Suite], set[str]]:
    """Return the suites that ``--only`` asks for, and the metrics it names (empty: all of these suites).

    Parameters
    ----------
    only
        Names of suites or of metrics; None for everything but what is computed only where it is named.
    """
    known = all_suites()
    if not only:
        return [suite for suite in known.values() if suite.by_default], set()
    owner: dict[str, list[str]] = {}
    for suite in known.values():
        for metric in suite.metrics:
            owner.setdefault(metric, []).append(suite.name)
    suites: dict[str, Suite] = {}
    wanted: set[str] = set()
    whole: set[str] = set()
    for name in only:
        if name in known:
            suites[name] = known[name]
            whole.update(known[name].metrics)
        elif name in owner:
            suites.update({suite: known[suite] for suite in owner[name]})
            wanted.add(name)
        else:
            raise UserError(
                f"no metric or suite {name!r}{nearest(name, [*known, *owner]) or ';'} suites: {', '.join(SUITES)};"
                f" metrics: {', '.join(owner)}"
            )
    return list(suites.values()), (wanted | whole) if wanted else set()
