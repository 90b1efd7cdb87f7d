"""Metrics that are computed where ``--only`` names them: a second look at the confidences, classes and losses.

They cost more than a pass over columns that are sorted already, or answer a narrower question than those beside which
they stand; the default table is without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.clips import has_clips
from analyze.intervals.means import mean_interval
from analyze.intervals.selective_intervals import area_interval
from analyze.metrics.skill import null_loss
from analyze.predictions.summaries import Summary
from analyze.suites.base import (
    Case,
    Number,
    attempt,
    confidences_of,
    independent,
    without,
    without_interval,
)
from analyze.suites.calibration import NO_ERROR_INTERVAL, brier_each

WORST = 10
AREAS = ("e_augrc", "achievable_aurc", "balanced_aurc", "balanced_augrc")
SKILLS = ("d2_log_loss", "d2_brier")
METRICS = (*AREAS, "top_label_ece", *SKILLS, f"worst_classes_accuracy{WORST}")
CHOSEN_HERE = "chosen by the images that it is measured on"


def run(case: Case) -> Iterator[Number]:
    """Yield the further numbers of a case."""
    rows = case.labelled()
    if not len(rows):
        yield from without(METRICS, f"dataset {case.summary.dataset.id} has no labelled image that could be read")
        return
    right, labels = rows["label_rank"] == 0, rows["label"].astype(np.int64)
    try:
        confidences = confidences_of(rows["confidence"])
    except ValueError as error:
        yield from without((*AREAS, "top_label_ece"), str(error))
    else:
        yield from _areas(case, confidences, right, labels)
        top_label = partial(metrics.top_label_calibration_error, confidences, right, rows.prediction.astype(np.int64))
        bins = int(case.settings["calibration"]["bins"])
        changed = case.settings.changed("calibration", "bins")
        found = attempt("top_label_ece", lambda: top_label(n_bins=bins), n=len(rows), options=changed)
        yield without_interval(found, NO_ERROR_INTERVAL)
    for name in SKILLS:
        yield _skill(case, rows, name)
    least = case.settings["accuracy"]["worst_class_least"]
    worst = attempt(
        f"worst_classes_accuracy{WORST}",
        lambda: metrics.worst_classes_accuracy(right, labels, n_classes=int(labels.max()) + 1, k=WORST, least=least),
        n=len(rows),
        options=case.settings.changed("accuracy", "worst_class_least"),
    )
    yield without_interval(worst, f"its classes are {CHOSEN_HERE}")


def _areas(
    case: Case, confidences: NDArray[Any], right: NDArray[np.bool_], labels: NDArray[np.int64]
) -> Iterator[Number]:
    n, level = right.size, case.settings["bootstrap"]["confidence_level"]
    excess = attempt("e_augrc", lambda: metrics.e_augrc(confidences, right), n=n)
    yield independent(excess, case, lambda: area_interval(case.ranking(), "e_augrc", level=level))
    best = attempt("achievable_aurc", lambda: metrics.achievable_aurc(confidences, right), n=n)
    yield without_interval(best, f"biased downward, its thresholds are {CHOSEN_HERE}")
    of_classes: tuple[tuple[str, Callable[..., float]], ...] = (
        ("balanced_aurc", metrics.balanced_aurc),
        ("balanced_augrc", metrics.balanced_augrc),
    )
    for name, function in of_classes:
        area = partial(function, confidences, right, labels, n_classes=int(labels.max()) + 1)
        yield without_interval(attempt(name, area, n=n), "no variance of it is known that holds for few images a class")


def _skill(case: Case, rows: Summary, name: str) -> Number:
    """Return D2 with the interval of the delta method: what each image adds to the loss and to the classes' shares."""

    def parts() -> tuple[float, NDArray[np.float64]]:
        log_p = rows["label_log_probability"].astype(np.float64)
        losses = -log_p if name == "d2_log_loss" else brier_each(rows["sum_squares"], log_p)
        return skill_parts(losses, rows["label"].astype(np.int64), logarithmic=name == "d2_log_loss")

    found = attempt(name, lambda: parts()[0], n=len(rows))
    level = case.settings["bootstrap"]["confidence_level"]
    if has_clips(case.summary.metadata):
        return without_interval(found, "frames of one clip are not independent")

    def influences() -> NDArray[np.float64]:
        value, moved = parts()
        return np.asarray(value + moved, np.float64)

    return independent(found, case, lambda: mean_interval(influences(), bounded=False, level=level))


def skill_parts(
    losses: NDArray[np.float64], labels: NDArray[np.int64], *, logarithmic: bool
) -> tuple[float, NDArray[np.float64]]:
    """Return D2 and each image's influence on it, (n,) with mean 0.

    Parameters
    ----------
    losses
        (n,) loss of each image: log loss, or squared distance.
    labels
        (n,) class numbers; the shares of the classes are those of these images.
    logarithmic
        Which loss it is.

    Raises
    ------
    UserError
        Where all labels are of one class.
    """
    counts = np.bincount(labels)
    shares = counts / labels.size
    own = shares[labels]
    null = null_loss(shares[counts > 0], logarithmic=logarithmic)
    of_null = -np.log(own) - null if logarithmic else -2 * (own - float((shares**2).sum()))
    mean = float(losses.mean())
    return 1 - mean / null, (mean / null * of_null - (losses - mean)) / null
