"""Selective prediction: how well the confidence ranks right before wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze._walk_kernels import point_replicates
from analyze.replicates import selective_replicates
from analyze.suites.base import Case, Number, attempt, bounded, without

METRICS = ("aurc", "e_aurc", "augrc", "correctness_auroc", "coverage_at_risk5", "risk_at_coverage80", "sac99")


def run(case: Case) -> Iterator[Number]:
    """Yield the selective-prediction numbers of a case."""
    rows = case.labelled()
    if not len(rows):
        yield from without(METRICS, f"dataset {case.summary.dataset.id} has no labelled image that could be read")
        return
    try:
        confidences = np.minimum(rows["confidence"].astype(np.float64), 1.0)
    except ValueError as error:
        yield from without(METRICS, str(error))
        return
    correct = rows["label_rank"] == 0
    options = case.settings["selective"]

    n = len(rows)
    ranked = _ranked(case, confidences, correct)
    for metric, compute in (
        ("aurc", metrics.aurc),
        ("e_aurc", metrics.e_aurc),
        ("augrc", metrics.augrc),
        ("correctness_auroc", metrics.correctness_auroc),
    ):
        found = attempt(metric, partial(compute, confidences, correct), n=n)
        if found.value is not None and metric in ranked:
            low, high = case.resampling.interval(found.value, ranked[metric])
            found = replace(found, low=low, high=high)
        yield found
    for risk in options["risks"]:
        found = attempt(
            f"coverage_at_risk{_percent(risk)}",
            partial(metrics.coverage_at_risk, confidences, correct, risk=risk),
            n=n,
        )
        yield bounded(found, case, partial(_at_risk, confidences, correct, risk, 0), n)
    for coverage in options["coverages"]:
        found = attempt(
            f"risk_at_coverage{_percent(coverage)}",
            partial(metrics.risk_at_coverage, confidences, correct, coverage=coverage),
            n=n,
        )
        yield bounded(found, case, partial(_at_coverage, confidences, correct, coverage), n)
    skip = options["skip"]
    for accuracy in options["accuracies"]:
        found = attempt(
            f"sac{_percent(accuracy)}",
            partial(metrics.selective_accuracy_constraint, confidences, correct, accuracy=accuracy, skip=skip),
            n=n,
            options=case.settings.changed("selective", "skip"),
        )
        yield bounded(
            found,
            case,
            partial(_at_risk, confidences, correct, 1.0 - accuracy, skip),
            n,
        )


def _ranked(case: Case, confidences: NDArray[Any], correct: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    if case.resampling is None or confidences.size < 2:
        return {}
    weights = case.resampling.weights(case.summary.dataset.id, confidences.size)
    return dict(selective_replicates(confidences, correct, weights))


def _at_risk(
    confidences: NDArray[Any], correct: NDArray[np.bool_], risk: float, skip: int, weights: NDArray[np.uint8]
) -> NDArray[np.float64]:
    return point_replicates(confidences, correct, weights, risk=risk, skip=skip)[0]


def _at_coverage(
    confidences: NDArray[Any], correct: NDArray[np.bool_], coverage: float, weights: NDArray[np.uint8]
) -> NDArray[np.float64]:
    return point_replicates(confidences, correct, weights, coverage=coverage)[1]


def _percent(share: float) -> str:
    """Return a share in percent as part of a name: 0.05 -> 5, 0.995 -> 99.5."""
    return f"{100 * share:.10g}"
