"""Selective prediction: how well the confidence ranks right before wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.suites.base import Case, Number, attempt, without
from cache_schema.errors import UserError

METRICS = ("aurc", "e_aurc", "augrc", "correctness_auroc", "coverage_at_risk5", "risk_at_coverage80", "sac99")
RANKED = METRICS[:4]


def run(case: Case) -> Iterator[Number]:
    """Yield the selective-prediction numbers of a case."""
    rows = case.labelled()
    if not len(rows):
        yield from without(METRICS, f"dataset {case.summary.dataset.id} has no labelled image that could be read")
        return
    if not rows.has("confidence"):
        yield from without(METRICS, _missing(rows))
        return
    options = case.settings["selective"]
    drawn = _replicates(case, len(rows))

    def number(metric: str, compute: Callable[[], float], changed: dict[str, Any] | None = None) -> Number:
        found = attempt(metric, compute, n=len(rows), options=changed or {})
        if found.value is None or metric not in drawn:
            return found
        ends = {} if metric in RANKED else {"low": 0.0, "high": 1.0}
        low, high = case.resampling.interval(found.value, drawn[metric], **ends)
        return replace(found, low=low, high=high)

    for metric in RANKED:
        yield number(metric, partial(_ask, case, metric))
    for risk in options["risks"]:
        yield number(f"coverage_at_risk{_percent(risk)}", partial(_ask, case, "coverage_at_risk", risk=risk))
    for coverage in options["coverages"]:
        yield number(
            f"risk_at_coverage{_percent(coverage)}", partial(_ask, case, "risk_at_coverage", coverage=coverage)
        )
    for accuracy in options["accuracies"]:
        how = {"accuracy": accuracy, "skip": options["skip"]}
        yield number(
            f"sac{_percent(accuracy)}",
            partial(_ask, case, "selective_accuracy_constraint", **how),
            case.settings.changed("selective", "skip"),
        )


def _ask(case: Case, name: str, **how: Any) -> float:
    return float(getattr(case.ranking(), name)(**how))


def _missing(rows: Any) -> str:
    try:
        rows["confidence"]
    except ValueError as error:
        return str(error)
    return ""


def _replicates(case: Case, n: int) -> dict[str, NDArray[np.float64]]:
    """Replicates of every number that is asked for, by the number's name; none where they cannot be had."""
    if case.resampling is None or n < 2:
        return {}
    options = case.settings["selective"]
    at_risk = {f"coverage_at_risk{_percent(risk)}": (risk, 0) for risk in options["risks"]}
    at_risk |= {f"sac{_percent(a)}": (1.0 - a, options["skip"]) for a in options["accuracies"]}
    weights = case.resampling.weights(case.summary.dataset.id, n)
    try:
        named, covered, risks = case.ranking().selective_replicates(
            weights, risks=list(at_risk.values()), coverages=options["coverages"]
        )
    except UserError:
        return {}
    names = [f"risk_at_coverage{_percent(coverage)}" for coverage in options["coverages"]]
    return named | dict(zip(at_risk, covered, strict=True)) | dict(zip(names, risks, strict=True))


def _percent(share: float) -> str:
    """Return a share in percent as part of a name: 0.05 -> 5, 0.995 -> 99.5."""
    return f"{100 * share:.10g}"
