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
from analyze.suites.base import Case, Number, attempt, without

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
    skip = options["skip"]
    drawn = _points(case, confidences, correct)
    for risk in options["risks"]:
        name = f"coverage_at_risk{_percent(risk)}"
        compute = partial(metrics.coverage_at_risk, confidences, correct, risk=risk)
        yield _bounded(attempt(name, compute, n=n), case, drawn)
    for coverage in options["coverages"]:
        name = f"risk_at_coverage{_percent(coverage)}"
        compute = partial(metrics.risk_at_coverage, confidences, correct, coverage=coverage)
        yield _bounded(attempt(name, compute, n=n), case, drawn)
    for accuracy in options["accuracies"]:
        name = f"sac{_percent(accuracy)}"
        compute = partial(metrics.selective_accuracy_constraint, confidences, correct, accuracy=accuracy, skip=skip)
        found = attempt(name, compute, n=n, options=case.settings.changed("selective", "skip"))
        yield _bounded(found, case, drawn)


def _points(case: Case, confidences: NDArray[Any], correct: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Replicates of every point of the curve that is asked for, by the number's name."""
    if case.resampling is None or confidences.size < 2:
        return {}
    options = case.settings["selective"]
    at_risk = {f"coverage_at_risk{_percent(risk)}": (risk, 0) for risk in options["risks"]}
    at_risk |= {f"sac{_percent(a)}": (1.0 - a, options["skip"]) for a in options["accuracies"]}
    weights = case.resampling.weights(case.summary.dataset.id, confidences.size)
    covered, risks = point_replicates(
        confidences, correct, weights, risks=list(at_risk.values()), coverages=options["coverages"]
    )
    names = [f"risk_at_coverage{_percent(coverage)}" for coverage in options["coverages"]]
    return dict(zip(at_risk, covered, strict=True)) | dict(zip(names, risks, strict=True))


def _bounded(number: Number, case: Case, drawn: dict[str, NDArray[np.float64]]) -> Number:
    if number.value is None or number.metric not in drawn:
        return number
    low, high = case.resampling.interval(number.value, drawn[number.metric], low=0.0, high=1.0)
    return replace(number, low=low, high=high)


def _ranked(case: Case, confidences: NDArray[Any], correct: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    if case.resampling is None or confidences.size < 2:
        return {}
    weights = case.resampling.weights(case.summary.dataset.id, confidences.size)
    return dict(selective_replicates(confidences, correct, weights))


def _percent(share: float) -> str:
    """Return a share in percent as part of a name: 0.05 -> 5, 0.995 -> 99.5."""
    return f"{100 * share:.10g}"
