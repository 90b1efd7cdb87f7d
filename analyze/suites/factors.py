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
from analyze.intervals.replicates import ece_replicates
from analyze.metrics import METRICS as METRIC_RANGES
from analyze.metrics.factors import factor_results, worst_factor
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import proportion
from analyze.suites.base import Case, Number, attempt, bounded, without
from analyze.suites.calibration import brier_each
from cache_schema.errors import UserError

METRICS = ("factor_accuracy", "error_ratio", "worst_factor_accuracy")
CALIBRATION = ("ece", "calibration_gap", "nll", "brier")
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
    held_out = case.held_out[rows[use]]
    variant = case.settings.changed("factors", "labels", "keep_prototypes")
    if not len(summary):
        yield from without(METRICS, "no annotated image has a label and could be read", options=variant)
        return
    yield from _numbers(case, summary, summary["label_rank"] == 0, members, {"options": variant}, held_out)
    for name, right in _other_notions(summary, annotations):
        told_too = {"options": {**variant, "correct": name}}
        yield from _numbers(case, summary, right, members, told_too, None)


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
        held_out = case.held_out[use]
        yield from _numbers(case, summary, summary["label_rank"] == 0, members, {}, held_out, column=column)


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
    held_out: NDArray[np.bool_] | None,
    *,
    column: str = "",
) -> Iterator[Number]:
    """Yield the numbers of each factor, and the worst; calibration where the rows held out are told."""
    whole = {"subset": f"annotated:{column}" if column else "annotated"}
    yield _with(proportion(case, "top1", int(correct.sum()), correct.size), variant | whole)
    level = case.settings["accuracy"]["confidence_level"]
    results = factor_results(correct, members, level=level)
    for result in results:
        here = variant | {"factor": result.factor}
        hits = round(result.accuracy * result.n)
        yield _with(proportion(case, "factor_accuracy", hits, result.n), here)
        yield attempt("error_ratio", partial(_ratio, correct, result), n=result.n, **here)
        if held_out is not None:
            yield from _calibration(case, summary, members[result.factor], held_out, here)
    if results:
        worst = worst_factor(results)
        number = proportion(case, "worst_factor_accuracy", round(worst.accuracy * worst.n), worst.n)
        options = {**variant.get("options", {}), "factor": worst.factor} | ({"column": column} if column else {})
        yield _with(number, variant | {"options": options})


def _calibration(
    case: Case, summary: Summary, member: NDArray[np.bool_], held_out: NDArray[np.bool_], here: dict[str, Any]
) -> Iterator[Number]:
    """Calibration on a factor's images, and after the temperature on those that it was not fitted on."""
    yield from _of_probabilities(case, summary, member, "", here)
    tested = member & held_out
    if case.is_fit_set:
        # The same rows as the calibrated numbers, so that before and after can be compared.
        yield from _of_probabilities(case, summary, tested, "", {**here, "subset": "held-out"})
    if "temperature" not in case.settings["calibrators"]["methods"]:
        return
    split = case.settings.changed("split")
    options = {**here.get("options", {}), **split}
    scaled = {**here, "calibrator": "temperature", "id_dataset": case.calibrated_on, "options": options}
    if case.summary.facts.get("temperature") is None:
        yield from without(CALIBRATION, case.no_temperature or "no temperature was fitted", **scaled)
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
    drawn = partial(ece_replicates, confidences, correct, n_bins=n_bins)
    yield bounded(attempt("ece", ece, n=n, **with_bins), case, drawn, n, low=0.0, high=1.0, basic=True)
    columns: dict[str, Callable[[], NDArray[Any]]] = {
        "calibration_gap": lambda: confidences - correct,
        "nll": lambda: -rows[f"{prefix}label_log_probability"].astype(np.float64),
        "brier": lambda: brier_each(rows[f"{prefix}sum_squares"], rows[f"{prefix}label_log_probability"]),
    }
    for metric, column in columns.items():
        yield attempt(metric, partial(_mean, case, metric, column), **here)


def _mean(case: Case, metric: str, column: Callable[[], NDArray[Any]]) -> Number:
    """Mean of a column of images with Student's interval: wide where few images decide nothing."""
    values = column()
    mean, n = float(values.mean(dtype=np.float64)), values.size
    if n < 2 or not np.isfinite(mean):
        return Number(metric=metric, value=mean, n=n)
    low, high = METRIC_RANGES[metric].low, METRIC_RANGES[metric].high
    reach = student(case.settings["accuracy"]["confidence_level"], n - 1) * float(values.std(ddof=1)) / np.sqrt(n)
    return Number(metric=metric, value=mean, low=max(low, mean - reach), high=min(high, mean + reach), n=n)


@cache
def student(level: float, freedom: int) -> float:
    """Return how many standard errors a two-sided Student interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


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
