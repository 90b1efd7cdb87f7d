"""Visual factors: accuracy, error ratio and calibration on the images that have a factor or a metadata
value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations import Annotations, aligned, of_metadata
from analyze.fits.registry import FITS
from analyze.intervals.calibration_intervals import ece_interval
from analyze.intervals.means import mean_interval
from analyze.intervals.ranking import Ranking
from analyze.metrics.factors import factor_results, worst_factor
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import of_rows
from analyze.suites.base import Case, Number, attempt, independent, without, without_interval
from analyze.suites.calibration import brier_each
from analyze.suites.column_values import grouped
from closerlook_common.errors import UserError

METRICS = ("factor_accuracy", "error_ratio", "worst_factor_accuracy")
CALIBRATION = ("ece", "ece_debiased", "ece_if_calibrated", "ece_p", "calibration_gap", "nll", "brier")
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
                    subset=_annotated(column),
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
    given = {name for name in options["factors"] if name in annotations.members} or set(annotations.members)
    members = {name: values[use] for name, values in annotations.members.items() if name in given}
    summary = case.summary.rows(rows[use])
    held_out = case.held_out[rows[use]]
    variant = case.settings.changed("factors", "labels", "keep_prototypes")
    if not len(summary):
        yield from without(METRICS, "no annotated image has a label and could be read", options=variant)
        return
    yield from _numbers(case, summary, summary["label_rank"] == 0, members, {"options": variant}, held_out)
    for name, right in _other_notions(summary, annotations):
        stated_too = {"options": {**variant, "correct": name}}
        yield from _numbers(case, summary, right, members, stated_too, None)


def by_column(case: Case, column: str, values: NDArray[Any]) -> Iterator[Number]:
    """Yield the numbers by value of a metadata column, or by range between its quantiles (``column_values``)."""
    options = case.settings["factors"]
    try:
        factors = grouped(column, values, most_values=options["most_values"], quantiles=options["quantiles"])
    except UserError as error:
        yield Number(metric="factor_accuracy", reason=str(error), subset=_annotated(column))
        return
    use = case.summary.labelled & np.logical_or.reduce([np.zeros(len(values), np.bool_), *factors.members.values()])
    members = {name: rows[use] for name, rows in factors.members.items() if rows[use].any()}
    if not members:
        reason = f"no labelled image has a value in column {column!r}"
        yield Number(metric="factor_accuracy", reason=reason, subset=_annotated(column))
        return
    summary = case.summary.rows(use)
    variant = {"options": {"quantiles": factors.quantiles}} if factors.quantiles else {}
    right, held_out = summary["label_rank"] == 0, case.held_out[use]
    yield from _numbers(case, summary, right, members, variant, held_out, column=column)


def _annotated(column: str) -> str:
    """Return the name of the rows that annotations, or a metadata column, say something of."""
    return f"annotated:{column}" if column else "annotated"


def _other_notions(summary: Summary, annotations: Annotations) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Coarse classes and ReaL labels: two further notions of being right."""
    if annotations.metaclass is not None and _in_metaclasses(summary, annotations.metaclass.size):
        coarse = annotations.metaclass
        yield "metaclass", coarse[summary.prediction] == coarse[summary["label"]]
    if annotations.real_labels is not None:
        real = annotations.real_labels
        pairs = zip(summary["image_key"].tolist(), summary.prediction.tolist(), strict=True)
        yield "real", np.array([prediction in real.get(key, ()) for key, prediction in pairs])


def _in_metaclasses(summary: Summary, n_classes: int) -> bool:
    """Return whether labels and predictions are among the classes that have a coarse class."""
    if summary.dataset.class_map is not None or summary.n_classes > n_classes:
        return False
    return bool(max(summary.prediction.max(), summary["label"].max()) < n_classes)


def _numbers(
    case: Case,
    summary: Summary,
    correct: NDArray[np.bool_],
    members: Mapping[str, NDArray[np.bool_]],
    variant: dict[str, Any],
    held_out: NDArray[np.bool_] | None,
    *,
    column: str = "",
) -> Iterator[Number]:
    """Yield the numbers of each factor, and the worst; calibration where the rows held out are known."""
    whole = {"subset": _annotated(column)}
    yield _with(of_rows(case, "top1", correct, summary), variant | whole)
    level = case.settings["accuracy"]["confidence_level"]
    results = factor_results(correct, members, level=level)
    for result in results:
        here = variant | {"factor": result.factor}
        member = members[result.factor]
        accuracy = of_rows(case, "factor_accuracy", correct[member], summary.rows(member))
        yield _with(accuracy, here)
        yield attempt("error_ratio", partial(_ratio, correct, result, accuracy), n=result.n, **here)
        if held_out is not None:
            yield from _calibration(case, summary, members[result.factor], held_out, here)
    if results:
        worst = worst_factor(results)
        member = members[worst.factor]
        number = of_rows(case, "worst_factor_accuracy", correct[member], summary.rows(member))
        options = {**variant.get("options", {}), "factor": worst.factor} | ({"column": column} if column else {})
        yield _with(number, variant | {"options": options})


def _calibration(
    case: Case, summary: Summary, member: NDArray[np.bool_], held_out: NDArray[np.bool_], here: dict[str, Any]
) -> Iterator[Number]:
    """Calibration on a factor's images, and after the temperature on those that it was not fitted on."""
    yield from _of_probabilities(case, summary, member, "", here)
    tested = member & held_out
    if case.is_tested_in_part:
        # The same rows as the calibrated numbers, so that before and after can be compared.
        options = {**here.get("options", {}), **case.settings.changed("split")}
        yield from _of_probabilities(case, summary, tested, "", {**here, "subset": "held-out", "options": options})
    if "temperature" not in case.settings["calibrators"]["methods"]:
        return
    fit = FITS["temperature"]
    options = {**here.get("options", {}), **fit.options(case.settings, case.calibrated_on)}
    scaled = {**here, "calibrator": "temperature", "id_dataset": case.calibrated_on, "options": options}
    if reason := case.summary.reason(fit.name):
        yield from without(CALIBRATION, reason, **scaled)
    else:
        yield from _of_probabilities(case, summary, tested, "scaled_", scaled)


def _of_probabilities(
    case: Case, summary: Summary, member: NDArray[np.bool_], prefix: str, here: dict[str, Any]
) -> Iterator[Number]:
    rows = summary.rows(member)
    n = len(rows)
    if n == 0:
        yield from without(CALIBRATION, "every image of the factor was fitted on", **here)
        return
    bins = case.settings.changed("calibration", "bins")
    with_bins = {**here, "options": {**here.get("options", {}), **bins}}
    rank = f"{prefix}label_rank"
    try:
        confidences = np.minimum(rows[f"{prefix}confidence"].astype(np.float64), 1.0)
    except ValueError as error:
        yield from without(CALIBRATION, str(error), **here)
        return
    correct = rows[rank if rows.has(rank) else "label_rank"] == 0
    n_bins = case.settings["calibration"]["bins"]
    ece = partial(metrics.expected_calibration_error, confidences, correct, n_bins=n_bins)
    level = case.settings["bootstrap"]["confidence_level"]
    ranked = cache(lambda: Ranking(confidences, correct))
    yield independent(
        attempt("ece", ece, n=n, **with_bins), case, lambda: ece_interval(ranked(), n_bins=n_bins, level=level)
    )
    if_calibrated = cache(lambda: ranked().calibrated_error(n_bins=n_bins))
    for metric, compute in (
        ("ece_debiased", lambda: ranked().debiased_calibration_error(n_bins=n_bins)),
        ("ece_if_calibrated", lambda: if_calibrated().expected),
        ("ece_p", lambda: if_calibrated().p_value),
    ):
        yield without_interval(attempt(metric, compute, n=n, **with_bins), "see the interval of ece, where it has one")
    columns: dict[str, Callable[[], NDArray[Any]]] = {
        "calibration_gap": lambda: confidences - correct,
        "nll": lambda: -rows[f"{prefix}label_log_probability"].astype(np.float64),
        "brier": lambda: brier_each(rows[f"{prefix}sum_squares"], rows[f"{prefix}label_log_probability"]),
    }
    for metric, column in columns.items():
        yield attempt(metric, partial(_mean, case, metric, column), **here)


def _mean(case: Case, metric: str, column: Callable[[], NDArray[Any]]) -> Number:
    """Return the mean of a column of images with its interval."""
    values = column()
    level = case.settings["accuracy"]["confidence_level"]
    number = Number(metric=metric, value=float(values.mean(dtype=np.float64)), n=values.size)
    return independent(number, case, lambda: mean_interval(values, bounded=metric != "nll", level=level))


def _ratio(correct: NDArray[np.bool_], result: Any, accuracy: Number) -> Number:
    """Error ratio; its interval is that of the factor's accuracy, the overall error taken as known."""
    error = 1.0 - float(correct.mean())
    if error == 0.0:
        raise UserError("no row is wrong: the error ratio is undefined")
    return Number(
        metric="error_ratio",
        value=result.error_ratio,
        low=None if accuracy.high is None else (1.0 - accuracy.high) / error,
        high=None if accuracy.low is None else (1.0 - accuracy.low) / error,
        interval="wilson, the overall error taken as known",
    )


def _with(number: Number, variant: Mapping[str, Any]) -> Number:
    return replace(number, **variant)
