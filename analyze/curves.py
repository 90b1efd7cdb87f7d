"""What figures of single models are drawn from: reliability, risk-coverage, ROC, score histograms, shared
errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze import metrics
from analyze.evaluate import choose
from analyze.evaluate.cases import build_cases
from analyze.evaluate.pairing import RowNames, grouped
from analyze.reading.sources import sources_of
from analyze.results.meant import study_score
from analyze.settings import Settings, study_defaults
from analyze.suites.base import Case, ModelCase, Wanted
from analyze.suites.detection import not_comparable, scored_rows
from analyze.suites.registry import SUITES
from analyze.suites.scores import score_of
from closerlook_common.errors import CloserlookError

CURVE_SCHEMA: dict[str, pl.DataType] = {
    "curve": pl.String(),
    "model": pl.String(),
    "dataset": pl.String(),
    "id_dataset": pl.String(),
    "series": pl.String(),
    "label": pl.String(),
    "group": pl.String(),
    "source": pl.String(),
    "x": pl.Float64(),
    "x_low": pl.Float64(),
    "x_high": pl.Float64(),
    "y": pl.Float64(),
    "y_low": pl.Float64(),
    "y_high": pl.Float64(),
    "weight": pl.Float64(),
}
"""Columns of ``curves``: ``curve`` names the kind, ``series`` what belongs together, ``weight`` the share of images.
``id_dataset`` is the in-distribution set of a ROC curve or histogram; of shared errors ``label`` numbers
the models that have the same images."""

KINDS = ("reliability", "risk_coverage", "roc", "score_histogram", "error_consistency")
BEFORE, AFTER = "before", "after temperature scaling"
POINTS = 200
"""Risk-coverage and ROC curves are thinned to about this many points; their areas are in the result table,
exactly."""
HISTOGRAM_BINS = 40
DRAWN_FROM = ("calibration", "detection", "selective")


def curves(
    cache: Any,
    *,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    kinds: Sequence[str] = KINDS,
    settings: Settings | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Compute the curves of models on the sets of a cache.

    Parameters
    ----------
    cache
        An open cache; summary stores do where there are no big ones.
    models, datasets
        Ids or patterns; everything when None.
    kinds
        Some of ``KINDS``.
    settings
        Options; the study's when None. With a result table: those of ``analyze.suites.made_with.settings_of``, so
        that bins and temperature are the table's.
    progress
        Called with (model, models done, models in all).

    Returns
    -------
    tuple of (polars.DataFrame, dict)
        Rows of ``CURVE_SCHEMA``, and what went wrong by model or set. Reliability and risk-coverage are of
        the rows that no calibrator saw; ROC and histograms use the study's score of the model.
    """
    settings = settings or study_defaults()
    sources = sources_of(cache)
    names = choose({s.model for s in sources}, models, "model")
    wanted = set(choose({s.dataset for s in sources}, datasets, "dataset")) if datasets else None
    rows: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    right: dict[str, list[tuple[RowNames, NDArray[np.bool_]]]] = {}
    for done, name in enumerate(names):
        own = [s for s in sources if s.model == name and (wanted is None or s.dataset in wanted or s.role == "id")]
        try:
            built = build_cases(own, settings, Wanted.of([SUITES[name] for name in DRAWN_FROM], "image_keys"))
        except (CloserlookError, OSError) as error:
            problems[name] = str(error)
            continue
        problems |= {f"{name} on {dataset}": text for dataset, text in built.problems.items()}
        card = {"model": name, "group": built.model.group, "source": built.model.source}
        rows.extend(card | row for row in _of_model(built, kinds, wanted))
        if "error_consistency" in kinds:
            by_dataset = {source.dataset: source for source in own}
            for case in built.of_role("id"):
                dataset = case.summary.dataset.id
                hits = np.where(case.summary.labelled, case.summary["label_rank"] == 0, False)
                right.setdefault(dataset, []).append((RowNames.of(by_dataset[dataset], case.summary), hits))
        progress(name, done + 1, len(names))
    rows += list(_consistency(right, problems))
    return pl.DataFrame(rows, schema=CURVE_SCHEMA), problems


def _of_model(built: ModelCase, kinds: Sequence[str], wanted: set[str] | None) -> Iterator[dict[str, Any]]:
    for case in built.of_role("id", "shift"):
        if wanted is not None and case.summary.dataset.id not in wanted:
            continue
        if "reliability" in kinds:
            yield from reliability_rows(case)
        if "risk_coverage" in kinds:
            yield from _risk_rows(case)
    if {"roc", "score_histogram"} & set(kinds):
        for inside in built.of_role("id"):
            yield from _ood_rows(inside, built.of_role("ood"), kinds)


def reliability_rows(case: Case) -> Iterator[dict[str, Any]]:
    """Yield a reliability diagram's bins, before and after temperature scaling, on rows that no calibrator
    saw.
    """
    summary = case.summary
    rows = summary.rows(summary.labelled & case.held_out)
    if not len(rows) or not rows.has("confidence"):
        return
    correct = rows["label_rank"] == 0
    for series, column in ((BEFORE, "confidence"), (AFTER, "scaled_confidence")):
        if not rows.has(column):
            continue
        found = metrics.reliability_diagram(
            np.minimum(rows[column].astype(np.float64), 1.0),
            correct,
            n_bins=int(case.settings["calibration"]["bins"]),
            level=float(case.settings["accuracy"]["confidence_level"]),
        )
        for b in range(found.counts.size):
            held = found.counts[b] > 0
            yield {
                "curve": "reliability",
                "dataset": summary.dataset.id,
                "series": series,
                "label": summary.dataset.role,
                "x_low": found.edges[b],
                "x_high": found.edges[b + 1],
                "weight": found.counts[b] / len(rows),
                **(
                    {
                        "x": found.mean_confidence[b],
                        "y": found.accuracy[b],
                        "y_low": found.low[b],
                        "y_high": found.high[b],
                    }
                    if held
                    else {}
                ),
            }


def _risk_rows(case: Case) -> Iterator[dict[str, Any]]:
    rows = case.summary.rows(case.summary.labelled & case.held_out)
    if not len(rows) or not rows.has("confidence"):
        return
    found = metrics.risk_coverage_curve(rows["confidence"].astype(np.float64), rows["label_rank"] == 0)
    for at in _thinned(found.coverage):
        yield {
            "curve": "risk_coverage",
            "dataset": case.summary.dataset.id,
            "series": "confidence",
            "label": case.summary.dataset.role,
            "x": float(found.coverage[at]),
            "y": float(found.risk[at]),
        }


def _thinned(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of about ``POINTS`` points spread evenly over x, the first and the last included."""
    wanted = np.linspace(x[0], x[-1], POINTS)
    return np.unique(np.concatenate([[0], np.searchsorted(x, wanted).clip(0, x.size - 1), [x.size - 1]]))


def _ood_rows(inside: Case, outside: list[Case], kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    score = study_score(inside.summary.model.group)
    try:
        own = score_of(score, inside.summary)[scored_rows(inside, score)].astype(np.float64)
    except ValueError:
        return
    others: dict[str, NDArray[np.float64]] = {}
    for case in outside:
        if not_comparable(inside, case):  # its numbers have the reason
            continue
        rows = case.summary.rows(case.summary["valid"])
        try:
            others[case.summary.dataset.id] = score_of(score, rows).astype(np.float64)
        except ValueError:
            continue
    for dataset, scores in others.items():
        if "roc" in kinds:
            found = metrics.roc_curve(own, scores)
            for at in np.unique(np.concatenate([_thinned(found.fpr), _thinned(found.tpr)])):
                yield {
                    "curve": "roc",
                    "dataset": dataset,
                    "id_dataset": inside.summary.dataset.id,
                    "series": score,
                    "x": float(found.fpr[at]),
                    "y": float(found.tpr[at]),
                }
    if "score_histogram" in kinds and others:
        everything = np.concatenate([own, *others.values()])
        low, high = (float(v) for v in np.quantile(everything, [0.001, 0.999]))
        edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
        if edges[0] == edges[-1]:
            return
        for dataset, scores in {inside.summary.dataset.id: own, **others}.items():
            density, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), bins=edges, density=True)
            for b in range(HISTOGRAM_BINS):
                yield {
                    "curve": "score_histogram",
                    "dataset": dataset,
                    "id_dataset": inside.summary.dataset.id,
                    "series": dataset,
                    "label": score,
                    "x_low": float(edges[b]),
                    "x_high": float(edges[b + 1]),
                    "y": float(density[b]),
                }


def _consistency(
    right: dict[str, list[tuple[RowNames, NDArray[np.bool_]]]], problems: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the error consistency of every two models whose rows can be paired by image name."""
    for dataset, models in right.items():
        if len(models) < 2:
            continue
        named = dict(enumerate(names for names, _ in models))
        groups = grouped(named)
        unnamed = [names.model for names in named.values() if names.keys is None]
        if unnamed:
            problems[f"error consistency on {dataset}"] = (
                f"{', '.join(unnamed)} left out: no image names, so rows cannot be paired; import with image ids"
            )
        for number, group in enumerate(groups, 1):
            if len(group) < 2:
                continue
            places = sorted(group)
            hits = [models[place][1] if group[place] is None else models[place][1][group[place]] for place in places]
            matrix = metrics.error_consistency_matrix(np.stack(hits))
            for i, first in enumerate(places):
                for j, second in enumerate(places):
                    value = float(matrix[i, j])
                    yield {
                        "curve": "error_consistency",
                        "dataset": dataset,
                        "label": str(number),
                        "model": named[first].model,
                        "series": named[second].model,
                        "y": value if np.isfinite(value) else None,
                    }
