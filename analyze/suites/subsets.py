"""The in-distribution set on the classes of every shifted set that keeps only some: the x axis of
effective robustness.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analyze.intervals.means import mean_interval
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import mean_class_accuracy, top_k
from analyze.suites.base import Case, ModelCase, Number, attempt, independent, without
from analyze.suites.calibration import nll

METRICS = ("top1", "top5", "mean_class_accuracy", "nll")


def run(model: ModelCase) -> Iterator[Number]:
    """Yield accuracies and NLL of every ID set on the classes of every shifted set, as subset
    ``classes:NAME``.
    """
    for (inside, other), summary in sorted(model.subsets.items()):
        if other in model.cases and model.cases[other].summary.dataset.role != "shift":
            continue
        variant = {"dataset": inside, "subset": f"classes:{other}"}
        if isinstance(summary, str):
            yield from without(METRICS, summary, **variant)
        elif inside in model.cases:
            yield from _numbers(replace(model.cases[inside], summary=summary), variant)


def _numbers(case: Case, variant: dict[str, str]) -> Iterator[Number]:
    rows: Summary = case.labelled()
    if not len(rows):
        yield from without(METRICS, "no labelled image of these classes could be read", **variant)
        return
    yield attempt("top1", lambda: top_k(case, rows, 1), **variant)
    yield attempt("top5", lambda: top_k(case, rows, 5), **variant)
    yield attempt("mean_class_accuracy", lambda: mean_class_accuracy(case, rows), **variant)
    loss = attempt("nll", lambda: nll(rows["label_log_probability"]), n=len(rows), **variant)
    level = case.settings["bootstrap"]["confidence_level"]
    yield independent(
        loss,
        case,
        lambda: mean_interval(-rows["label_log_probability"].astype(np.float64), bounded=False, level=level),
    )
