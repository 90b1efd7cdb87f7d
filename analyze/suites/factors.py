"""Visual factors: accuracy, error ratio and calibration on the images that have a factor or a metadata
value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations import Annotations, aligned, of_metadata
from analyze.metrics.factors import factor_results, worst_factor
from analyze.suites.accuracy import proportion
from analyze.suites.base import Case, Number, attempt, without
from analyze.summaries import Summary
from cache_schema.errors import UserError

METRICS = ("factor_accuracy", "error_ratio", "worst_factor_accuracy")
ROLES = ("id", "shift")


def run(case: Case) -> Iterator[Number]:
    """Yield the factors that a dataset's own metadata annotate, and the values of the columns that are
    asked for.
    """
    options = case.settings["factors"]
    metadata = case.summary.metadata
    for labels in (options["labels"],):
        annotations = of_metadata(metadata, labels=labels)
        if annotations is not None:
            yield from by_annotations(case, annotations, np.arange(len(case.summary)))
    for column in options["columns"]:
        if column not in metadata:
            if case.summary.dataset.role == "id":
                yield from without(
                    ("factor_accuracy",),
                    f"dataset {case.summary.dataset.id} has no metadata column {column!r}",
                )
            continue
        yield from by_column(case, column, metadata[column])


def by_file(case: Case, annotations: Annotations) -> Iterator[Number]:
    """Yield the numbers by factor for annotations that are joined by file name."""
    try:
        kept, rows = aligned(annotations, case.summary["image_key"])
    except ValueError as error:
        yield from without(METRICS, str(error))
        return
    yield from by_annotations(case, kept, rows)


def by_annotations(case: Case, annotations: Annotations, rows: NDArray[np.int64]) -> Iterator[Number]:
    """Yield the numbers by factor.

    Parameters
    ----------
    case
        A model on a dataset.
    annotations
        Of the images in ``rows``.
    rows
        Row of the dataset of each annotated image.
    """
    options = case.settings["factors"]
    use = case.summary.labelled[rows]
    if not options["keep_prototypes"]:
        use = use & ~annotations.prototype
    told = {name for name in options["factors"] if name in annotations.members} or set(annotations.members)
    members = {name: values[use] for name, values in annotations.members.items() if name in told}
    summary = case.summary.rows(rows[use])
    variant = case.settings.changed("factors", "labels", "keep_prototypes")
    if not len(summary):
        yield from without(METRICS, "no annotated image has a label and could be read", options=variant)
        return
    yield from _numbers(case, summary, summary["label_rank"] == 0, members, {"options": variant})
    for name, right in _other_notions(summary, annotations):
        told_too = {"options": {**variant, "correct": name}}
        yield from _numbers(case, summary, right, members, told_too, calibration=False)


def by_column(case: Case, column: str, values: NDArray[Any]) -> Iterator[Number]:
    """Yield the numbers by value of a metadata column; factors are named ``column=value``."""
    use = case.summary.labelled
    summary = case.summary.rows(use)
    kept = values[use]
    distinct = sorted(set(kept.tolist()), key=str)
    if len(distinct) > 1000:
        reason = f"column {column!r} has {len(distinct)} distinct values"
        yield Number(metric="factor_accuracy", reason=reason)
        return
    members = {f"{column}={value}": kept == value for value in distinct}
    if members:
        yield from _numbers(case, summary, summary["label_rank"] == 0, members, {}, overall=False)


def _other_notions(summary: Summary, annotations: Annotations) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Coarse classes and ReaL labels: two further notions of being right."""
    if annotations.metaclass is not None and annotations.metaclass.size >= summary.n_classes:
        coarse = annotations.metaclass
        yield "metaclass", coarse[summary.prediction] == coarse[summary["label"]]
    if annotations.real_labels is not None:
        real = annotations.real_labels
        pairs = zip(summary["image_key"].tolist(), summary.prediction.tolist(), strict=True)
        yield "real", np.array([prediction in real.get(key, ()) for key, prediction in pairs])


def _numbers(
    case: Case,
    summary: Summary,
    correct: NDArray[np.bool_],
    members: Mapping[str, NDArray[np.bool_]],
    variant: dict[str, Any],
    *,
    overall: bool = True,
    calibration: bool = True,
) -> Iterator[Number]:
    if overall:
        yield _with(proportion(case, "top1", int(correct.sum()), correct.size), variant | {"subset": "annotated"})
    level = case.settings["accuracy"]["confidence_level"]
    results = factor_results(correct, members, level=level)
    for result in results:
        here = variant | {"factor": result.factor}
        hits = round(result.accuracy * result.n)
        yield _with(proportion(case, "factor_accuracy", hits, result.n), here)
        yield attempt("error_ratio", partial(_ratio, correct, result), n=result.n, **here)
        if calibration:
            rows = members[result.factor]
            confidences = np.minimum(summary["confidence"][rows].astype(np.float64), 1.0)
            n_bins = case.settings["calibration"]["bins"]
            ece = partial(metrics.expected_calibration_error, confidences, correct[rows], n_bins=n_bins)
            yield attempt("ece", ece, n=result.n, **here)
    if overall and results:
        worst = worst_factor(results)
        number = proportion(case, "worst_factor_accuracy", round(worst.accuracy * worst.n), worst.n)
        options = {**variant.get("options", {}), "factor": worst.factor}
        yield _with(number, variant | {"options": options})


def _ratio(correct: NDArray[np.bool_], result: Any) -> Number:
    """Error ratio; its interval is that of the factor's accuracy, the overall error taken as known."""
    error = 1.0 - float(correct.mean())
    if error == 0.0:
        raise UserError("no row is wrong: the error ratio is undefined")
    return Number(
        metric="error_ratio",
        value=result.error_ratio,
        low=(1.0 - result.high) / error,
        high=(1.0 - result.low) / error,
    )


def _with(number: Number, variant: Mapping[str, Any]) -> Number:
    return replace(number, **variant)
