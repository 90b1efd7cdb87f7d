"""Selective prediction: how well the confidence ranks right before wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from analyze import metrics
from analyze.suites.base import Case, Number, attempt, without

METRICS = (
    "aurc",
    "eaurc",
    "augrc",
    "auroc_correct",
    "coverage_at_risk",
    "risk_at_coverage",
    "selective_accuracy_coverage",
)


def run(case: Case) -> Iterator[Number]:
    """Yield the selective-prediction numbers of a case."""
    rows = case.labelled()
    if not len(rows):
        yield from without(
            METRICS, f"dataset {case.summary.dataset.id} has no labelled image that could be read"
        )
        return
    try:
        confidences = np.minimum(rows["confidence"].astype(np.float64), 1.0)
    except ValueError as error:
        yield from without(METRICS, str(error))
        return
    correct = rows["label_rank"] == 0
    options = case.settings["selective"]

    def number(metric: str, compute: Callable[[], float], **told: Any) -> Number:
        return attempt(metric, compute, n=len(rows), options=told)

    yield number("aurc", lambda: metrics.aurc(confidences, correct))
    yield number("eaurc", lambda: metrics.e_aurc(confidences, correct))
    yield number("augrc", lambda: metrics.augrc(confidences, correct))
    yield number("auroc_correct", lambda: metrics.correctness_auroc(confidences, correct))
    for risk in options["risks"]:
        at_risk = partial(metrics.coverage_at_risk, confidences, correct, risk=risk)
        yield number("coverage_at_risk", at_risk, risk=risk)
    for coverage in options["coverages"]:
        at_coverage = partial(metrics.risk_at_coverage, confidences, correct, coverage=coverage)
        yield number("risk_at_coverage", at_coverage, coverage=coverage)
    skip = case.settings.changed("selective", "skip")
    for accuracy in options["accuracies"]:
        constraint = partial(
            metrics.selective_accuracy_constraint,
            confidences,
            correct,
            accuracy=accuracy,
            skip=options["skip"],
        )
        yield number("selective_accuracy_coverage", constraint, accuracy=accuracy, **skip)
