"""Accuracy: top-1, top-5, mean and worst over classes, each with an interval of the proportion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.label_sets import parse
from analyze.intervals import proportion_interval
from analyze.predictions.summaries import Summary
from analyze.suites.base import Case, Number, attempt, without
from cache_schema.errors import UserError

METRICS = (
    "top1",
    "top5",
    "mean_class_accuracy",
    "worst_class_accuracy",
    "worst_class",
    "multi_label_accuracy",
    "invalid_images",
)


IMAGENET = "imagenet-1k"
"""Class space whose ID set is asked for ReaL labels: where it has none, a row says so."""


def run(case: Case) -> Iterator[Number]:
    """Yield the accuracies of a case."""
    summary = case.summary
    yield Number(metric="invalid_images", value=float((~summary["valid"]).sum()), n=len(summary))
    rows = case.labelled()
    if not len(rows):
        yield from without(METRICS[:-1], f"dataset {summary.dataset.id} has no labelled image that could be read")
        return
    options = case.settings.changed("accuracy", "interval", "confidence_level")
    for k in (1, 5):
        yield attempt(f"top{k}", partial(top_k, case, rows, k), options=options)
    yield attempt("mean_class_accuracy", lambda: mean_class_accuracy(rows))
    try:
        yield from worst_class(case, rows)
    except UserError as error:
        yield from without(("worst_class_accuracy", "worst_class"), str(error))
    yield from _multi_label(case)


def proportion(case: Case, metric: str, hits: int, n: int) -> Number:
    """Return a share of images with its interval."""
    options = case.settings["accuracy"]
    interval = proportion_interval(hits, n, level=options["confidence_level"], method=options["interval"])
    return Number(metric=metric, value=hits / n, low=interval.low, high=interval.high, n=n)


def top_k(case: Case, rows: Summary, k: int) -> Number:
    """Return the share of images whose label is among the k largest logits (ties: the lower class first)."""
    if k > 1 and rows.n_classes and rows.n_classes <= k:
        raise UserError(f"top{k} says nothing with {rows.n_classes} classes")
    if k > rows["top"].shape[1]:
        raise UserError(f"top{k} needs the ranks of the labels: only predictions were imported")
    return proportion(case, f"top{k}", int((rows["label_rank"] < k).sum()), len(rows))


def _by_class(rows: Summary) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    labels = rows["label"]
    counts = np.bincount(labels)
    hits = np.bincount(labels, weights=rows["label_rank"] == 0)
    seen = np.flatnonzero(counts)
    return seen, hits[seen], counts[seen]


def _multi_label(case: Case) -> Iterator[Number]:
    """Accuracy against several acceptable labels an image: ImageNet-val's ReaL labels, or a dataset's own."""
    names = case.settings["accuracy"]["label_sets"]
    present = [name for name in names if name in case.summary.metadata]
    card = case.summary.dataset
    if not present and card.role == "id" and card.class_space == IMAGENET:
        columns = " or ".join(repr(name) for name in names)
        reason = f"dataset {case.summary.dataset.id} has no metadata column {columns} of acceptable labels"
        yield Number(metric="multi_label_accuracy", reason=reason)
    for name in present:
        options = {"labels": name} | case.settings.changed("accuracy", "interval", "confidence_level")
        yield attempt("multi_label_accuracy", partial(multi_label_accuracy, case, name), options=options)


def multi_label_accuracy(case: Case, column: str) -> Number:
    """Return the share of images whose prediction is acceptable, among those that have an acceptable label."""
    rows = case.summary.rows(case.summary["valid"])
    sets = parse(rows.metadata[column], column)
    told = np.array([len(labels) > 0 for labels in sets], np.bool_)
    if not told.any():
        raise UserError(f"no image has a label in the metadata column {column!r}")
    pairs = zip(rows.prediction.tolist(), sets, strict=True)
    hits = sum(prediction in labels for prediction, labels in pairs)
    return proportion(case, "multi_label_accuracy", hits, int(told.sum()))


def mean_class_accuracy(rows: Summary) -> Number:
    """Return the unweighted mean over classes that occur of the accuracy within the class."""
    _, hits, counts = _by_class(rows)
    share = hits / counts
    # The classes are fixed and the images within them drawn: the variance of a mean of independent
    # proportions.
    spread = float(np.sqrt((share * (1 - share) / counts).sum()) / share.size)
    mean = float(share.mean())
    return Number(
        metric="mean_class_accuracy",
        value=mean,
        low=max(0.0, mean - 1.96 * spread),
        high=min(1.0, mean + 1.96 * spread),
        n=len(rows),
    )


def worst_class(case: Case, rows: Summary) -> Iterator[Number]:
    """Yield the lowest accuracy of a class with enough images, and the index of that class in the class space."""
    seen, hits, counts = _by_class(rows)
    enough = counts >= case.settings["accuracy"]["worst_class_least"]
    if not enough.any():
        raise UserError(f"no class has {case.settings['accuracy']['worst_class_least']} images")
    share = np.where(enough, hits / counts, np.inf)
    at = int(share.argmin())
    options = case.settings.changed("accuracy", "interval", "confidence_level", "worst_class_least")
    yield replace(
        proportion(case, "worst_class_accuracy", int(hits[at]), int(counts[at])),
        options=options,
    )
    least = {key: value for key, value in options.items() if key == "worst_class_least"}
    yield Number(metric="worst_class", value=float(seen[at]), n=int(counts[at]), options=least)
