"""Scores of two sets and a row of the result table in, the row with its interval, or why it has none, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.detection_intervals import detection_interval
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.set_means import Part, SetMeans, part_of
from analyze.metrics.proportions import Interval
from analyze.results import ResultRow
from analyze.settings import Settings
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

NAMED = 3
"""Images without a score that are named."""
OTHER_CONVENTION = "none: of another convention than the default"


def sorted_scores(scores: NDArray[np.float32] | None) -> SortedScores | None:
    """Return sorted scores; None where there are none, or one is not finite."""
    usable = scores is not None and scores.size and np.isfinite(scores).all()
    return SortedScores.of(scores) if usable and scores is not None else None


def with_interval(
    row: ResultRow, inside: SortedScores | None, outside: SortedScores | None, taken: Settings
) -> ResultRow:
    """Return a row with its interval, or the reason why there is none."""
    if row.value is None or inside is None or outside is None:
        return row
    if not is_usual(row.metric, taken):
        return replace(row, interval=OTHER_CONVENTION)
    return _bounded(
        row, lambda: detection_interval(row.metric, inside, outside, level=taken["bootstrap"]["confidence_level"])
    )


def is_usual(metric: str, taken: Settings) -> bool:
    """Return whether a metric is taken as its intervals take it."""
    if metric.startswith("fpr95"):
        return bool(taken["ood"]["threshold"] == "first")
    return not metric.startswith("aupr") or taken["ood"]["aupr"] == "average_precision"


def part_of_row(row: ResultRow, inside: SortedScores | None, outside: SortedScores | None, taken: Settings) -> Part:
    """Return what the rows of a set add to a number, or why that is not known."""
    if row.value is None or inside is None or outside is None:
        return row.reason or "no scores"
    return part_of(row.metric, inside, outside, level=taken["bootstrap"]["confidence_level"])


def mean_of(row: ResultRow, chosen: Sequence[ResultRow], sums: SetMeans, taken: Settings) -> ResultRow:
    """Return the mean over the rows of some OOD sets with its interval, or the reason why it has none.

    A set without a number takes the mean away.
    """
    digests = dict.fromkeys(digest for found in chosen for digest in found.store.split(","))
    row = replace(row, store=",".join(digests))
    missing = [found for found in chosen if found.value is None]
    if missing:
        return replace(row, reason=missing[0].reason)
    value = float(np.mean([found.value for found in chosen if found.value is not None]))
    row = replace(row, value=value, n=sum(found.n or 0 for found in chosen))
    if not is_usual(row.metric, taken):
        return replace(row, interval=OTHER_CONVENTION)
    return _bounded(row, lambda: sums.interval(row.metric, row.subset))


def _bounded(row: ResultRow, make: Callable[[], Interval]) -> ResultRow:
    try:
        interval = make()
    except UserError as error:
        return replace(row, interval=f"none: {str(error).removeprefix('no interval: ')}")
    return replace(row, low=interval.low, high=interval.high, interval=interval.described())


def leave_out_nan(
    store: PredictionStore,
    chosen: NDArray[np.bool_],
    found: dict[str, NDArray[np.float32]],
    note: Callable[[str], None],
) -> dict[str, NDArray[np.bool_]]:
    """Remove NaN from the scores of a set, and note which images had them; scores that are all NaN stay.

    Returns
    -------
    dict
        Detector -> which of the chosen rows were removed; without those that lost none.
    """
    removed: dict[str, NDArray[np.bool_]] = {}
    for name, scores in found.items():
        lost = np.isnan(scores)
        if not lost.any() or lost.all():
            continue
        rows = np.flatnonzero(chosen)[lost]
        ids = ", ".join(store.image_ids[row] for row in rows[:NAMED]) + (", ..." if rows.size > NAMED else "")
        images = counted(rows.size, "image")
        note(f"{store.model.id}: {name} gives NaN for {images} of {store.dataset.id}, left out: {ids}")
        found[name] = scores[~lost]
        removed[name] = lost
    return removed
