"""Selective prediction: how well the confidence ranks right before wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from analyze.intervals.ranking import Ranking
from analyze.intervals.selective_intervals import area_interval, coverage_interval, risk_interval
from analyze.metrics.proportions import Interval
from analyze.suites.base import Case, Number, attempt, independent, without

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
    level = case.settings["bootstrap"]["confidence_level"]
    ranking = case.ranking

    def number(metric: str, compute: Callable[[], float], make: Callable[[], Interval], **how: Any) -> Number:
        return independent(attempt(metric, compute, n=len(rows), **how), case, make)

    for metric in RANKED:
        yield number(metric, partial(_ask, case, metric), partial(_area, ranking, metric, level))
    for risk in options["risks"]:
        yield number(
            f"coverage_at_risk{_percent(risk)}",
            partial(_ask, case, "coverage_at_risk", risk=risk),
            partial(_coverage, ranking, risk, 0, level),
        )
    for coverage in options["coverages"]:
        yield number(
            f"risk_at_coverage{_percent(coverage)}",
            partial(_ask, case, "risk_at_coverage", coverage=coverage),
            partial(_risk, ranking, coverage, level),
        )
    for accuracy in options["accuracies"]:
        how = {"accuracy": accuracy, "skip": options["skip"]}
        yield number(
            f"sac{_percent(accuracy)}",
            partial(_ask, case, "selective_accuracy_constraint", **how),
            partial(_coverage, ranking, 1.0 - accuracy, options["skip"], level),
            options=case.settings.changed("selective", "skip"),
        )


def _area(ranking: Callable[[], Ranking], name: str, level: float) -> Interval:
    return area_interval(ranking(), name, level=level)


def _coverage(ranking: Callable[[], Ranking], risk: float, skip: int, level: float) -> Interval:
    # A hair of slack, so that 1 - 0.99 is the risk 0.01.
    return coverage_interval(ranking(), risk=risk * (1 + 1e-12), skip=skip, level=level)


def _risk(ranking: Callable[[], Ranking], coverage: float, level: float) -> Interval:
    return risk_interval(ranking(), coverage=coverage, level=level)


def _ask(case: Case, name: str, **how: Any) -> float:
    return float(getattr(case.ranking(), name)(**how))


def _missing(rows: Any) -> str:
    try:
        rows["confidence"]
    except ValueError as error:
        return str(error)
    return ""


def _percent(share: float) -> str:
    """Return a share in percent as part of a name: 0.05 -> 5, 0.995 -> 99.5."""
    return f"{100 * share:.10g}"
