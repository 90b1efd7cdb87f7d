"""Accuracy: top-1, top-5, mean and worst over classes, each with an interval of the proportion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.clips import ANCHOR, IS_ANCHOR, clips_of, has_clips
from analyze.annotations.label_sets import parse
from analyze.intervals import normal_reach, proportion_interval
from analyze.metrics.clips import anchors_right, clustered_proportion_interval
from analyze.predictions.summaries import Summary
from analyze.suites.base import Case, Number, attempt, with_interval, without
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

METRICS = (
    "top1",
    "top5",
    "mean_class_accuracy",
    "worst_class_accuracy",
    "worst_class",
    "multi_label_accuracy",
    "anchor_accuracy",
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
    yield attempt("mean_class_accuracy", lambda: mean_class_accuracy(case, rows))
    try:
        yield from worst_class(case, rows)
    except UserError as error:
        yield from without(("worst_class_accuracy", "worst_class"), str(error))
    yield from _multi_label(case)
    if has_clips(summary.metadata) and not summary.metadata[IS_ANCHOR].all():
        yield attempt("anchor_accuracy", partial(anchors, case), options=options)


def of_rows(case: Case, metric: str, right: NDArray[Any], rows: Summary) -> Number:
    """Return a share of rows with its interval; of frames of videos, whose clips are what is independent."""
    clips = clips_of(rows.metadata)
    if clips is None:
        return proportion(case, metric, int(right.sum()), len(rows))
    options = case.settings["accuracy"]
    interval = clustered_proportion_interval(
        right, clips, level=options["confidence_level"], method=options["interval"]
    )
    return with_interval(Number(metric=metric, value=float(right.mean()), n=len(rows)), interval)


def anchors(case: Case) -> Number:
    """Return the share of anchor frames that are right with all their neighbours.

    A neighbourhood of which a frame could not be read is left out, since it is unknown whether all of it is right.
    """
    every = case.summary.metadata[ANCHOR].astype(str)
    incomplete = set(every[~case.summary.labelled].tolist())
    whole = np.array([name not in incomplete for name in every], np.bool_)
    if not whole.any():
        raise UserError("no anchor frame could be read with all its neighbours")
    rows = case.summary.rows(whole)
    names = rows.metadata[ANCHOR].astype(str)
    right = anchors_right(rows["label_rank"] == 0, names)
    clips = clips_of(rows.metadata)
    assert clips is not None
    options = case.settings["accuracy"]
    interval = clustered_proportion_interval(
        right,
        clips[np.unique(names, return_index=True)[1]],
        level=options["confidence_level"],
        method=options["interval"],
    )
    return with_interval(Number(metric="anchor_accuracy", value=float(right.mean()), n=right.size), interval)


def proportion(case: Case, metric: str, hits: int, n: int) -> Number:
    """Return a share of images with its interval."""
    options = case.settings["accuracy"]
    interval = proportion_interval(hits, n, level=options["confidence_level"], method=options["interval"])
    return with_interval(Number(metric=metric, value=hits / n, n=n), interval)


def top_k(case: Case, rows: Summary, k: int) -> Number:
    """Return the share of images whose label is among the k largest logits (ties: the lower class first)."""
    if k > 1 and rows.n_classes and rows.n_classes <= k:
        raise UserError(f"top{k} is meaningless with {counted(rows.n_classes, 'class', 'classes')}")
    if k > rows["top"].shape[1]:
        raise UserError(f"top{k} needs the ranks of the labels: only predictions were imported")
    return of_rows(case, f"top{k}", rows["label_rank"] < k, rows)


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
    given = np.array([len(labels) > 0 for labels in sets], np.bool_)
    if not given.any():
        raise UserError(f"no image has a label in the metadata column {column!r}")
    pairs = zip(rows.prediction.tolist(), sets, strict=True)
    right = np.array([prediction in labels for prediction, labels in pairs], np.bool_)
    return of_rows(case, "multi_label_accuracy", right[given], rows.rows(given))


def mean_class_accuracy(case: Case, rows: Summary) -> Number:
    """Return the unweighted mean over classes that occur of the accuracy within the class."""
    _, hits, counts = _by_class(rows)
    mean = float((hits / counts).mean())
    level = case.settings["accuracy"]["confidence_level"]
    low, high = mean_of_shares(hits, counts, level)
    clips = clips_of(rows.metadata)
    if clips is not None:  # frames of a clip vary together: never narrower than the clips' own spread
        reach = normal_reach(level) * _clustered_spread(rows, clips)
        low, high = min(low, max(0.0, mean - reach)), max(high, min(1.0, mean + reach))
    return Number(
        metric="mean_class_accuracy",
        value=mean,
        low=low,
        high=high,
        interval=f"wilson by class {100 * level:g} %",
        n=len(rows),
        options=case.settings.changed("accuracy", "confidence_level"),
    )


def _clustered_spread(rows: Summary, clips: NDArray[np.int64]) -> float:
    """Return the standard error of the mean over classes where the rows of a clip are not independent."""
    labels, right = rows["label"], rows["label_rank"] == 0
    counts = np.bincount(labels)
    share = np.bincount(labels, weights=right) / np.maximum(counts, 1)
    parts = (right - share[labels]) / counts[labels] / np.count_nonzero(counts)
    sums, n_clips = np.bincount(clips, weights=parts), int(clips.max()) + 1
    return float(np.sqrt((sums**2).sum() * n_clips / max(n_clips - 1, 1)))


def _accuracy_within(case: Case, metric: str, rows: Summary, label: int) -> Number:
    own = rows.rows(rows["label"] == label)
    return of_rows(case, metric, own["label_rank"] == 0, own)


def mean_of_shares(hits: NDArray[Any], counts: NDArray[Any], level: float) -> tuple[float, float]:
    """Return an interval of the mean of independent shares, from the Wilson interval of each.

    The classes are fixed and the images within them drawn. A class of one image has a sample variance of 0 whatever
    its accuracy, so variances are recovered from the ends of its interval (MOVER: Zou and Donner, Statistics in
    Medicine 27, 2008).
    """
    share, z = hits / counts, normal_reach(level)
    middle = (hits + z * z / 2) / (counts + z * z)
    reach = z / (counts + z * z) * np.sqrt(counts * share * (1 - share) + z * z / 4)
    below = float(np.sqrt(((share - (middle - reach)) ** 2).sum()) / share.size)
    above = float(np.sqrt(((middle + reach - share) ** 2).sum()) / share.size)
    mean = float(share.mean())
    return max(0.0, mean - below), min(1.0, mean + above)


def worst_class(case: Case, rows: Summary) -> Iterator[Number]:
    """Yield the lowest accuracy of a class with enough images, and the index of that class in the class space."""
    seen, hits, counts = _by_class(rows)
    enough = counts >= case.settings["accuracy"]["worst_class_least"]
    if not enough.any():
        raise UserError(f"no class has {counted(case.settings['accuracy']['worst_class_least'], 'image')}")
    share = np.where(enough, hits / counts, np.inf)
    at = int(share.argmin())
    options = case.settings.changed("accuracy", "interval", "confidence_level", "worst_class_least")
    yield replace(
        _accuracy_within(case, "worst_class_accuracy", rows, int(seen[at])),
        options=options,
    )
    least = {key: value for key, value in options.items() if key == "worst_class_least"}
    yield Number(metric="worst_class", value=float(seen[at]), n=int(counts[at]), options=least)
