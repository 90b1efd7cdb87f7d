"""Accuracy: top-1, top-5, mean and worst over classes, each with an interval of the proportion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals import proportion_interval
from analyze.suites.base import Case, Number, attempt, without
from analyze.summaries import Summary
from cache_schema.errors import UserError

METRICS = ("top1", "top5", "mean_class_accuracy", "worst_class_accuracy", "invalid_images")


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
    yield attempt("worst_class_accuracy", lambda: worst_class_accuracy(case, rows))


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


def worst_class_accuracy(case: Case, rows: Summary) -> Number:
    """Return the lowest accuracy of a class with enough images; the class is named in the options'
    ``class``.
    """
    seen, hits, counts = _by_class(rows)
    enough = counts >= case.settings["accuracy"]["worst_class_least"]
    if not enough.any():
        raise UserError(f"no class has {case.settings['accuracy']['worst_class_least']} images")
    share = np.where(enough, hits / counts, np.inf)
    at = int(share.argmin())
    number = proportion(case, "worst_class_accuracy", int(hits[at]), int(counts[at]))
    names = rows.dataset.class_names
    place = int(seen[at])
    return Number(
        metric=number.metric,
        value=number.value,
        low=number.low,
        high=number.high,
        n=number.n,
        options={
            "class": names[place] if place < len(names) else place,
            **case.settings.changed("accuracy", "interval", "confidence_level", "worst_class_least"),
        },
    )
