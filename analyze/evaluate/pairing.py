"""Which row of one model's store shows the same image as which row of another's: paired by image name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analyze.evaluate.cases import build_cases
from analyze.predictions.summaries import Summary
from analyze.reading.sources import Source
from analyze.settings import Settings
from analyze.suites.base import Wanted
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

BY_NAME, BY_ROW = "name", "row"

NO_NAMES = (
    "no image names are stored, so rows cannot be paired with those of another model. Import again with image ids, or"
    " pair row i with row i: `pair_by_row=True`"
)


@dataclass(frozen=True, eq=False)
class RowNames:
    """What distinguishes the rows of one model on one dataset.

    Attributes
    ----------
    model, dataset
        Ids of the cards.
    digest
        Of the dataset: equal digests mean the same images in the same order. Empty where it is unknown.
    labels
        (n,) labels.
    keys
        (n,) hashes of the file names; None where the store holds no image names.
    full_names
        Returns the full image ids; None where only the hashes were kept.
    """

    model: str
    dataset: str
    digest: str
    labels: NDArray[np.int64]
    keys: NDArray[np.int64] | None
    full_names: Callable[[], Sequence[str]] | None = None

    @classmethod
    def of(cls, source: Source, summary: Summary) -> RowNames:
        """Return the names of a source's rows."""
        keys = summary["image_key"].astype(np.int64) if summary.has("image_key") else None
        store = source.store

        def of_column() -> Sequence[str]:
            return [str(name) for name in store.column("image_id")]

        full: Callable[[], Sequence[str]] | None = None
        if keys is not None and not source.is_summary:
            full = partial(getattr, store, "image_ids")
        elif keys is not None and "image_id" in store.columns():
            full = of_column
        digest = summary.dataset.digest if keys is not None else ""
        return cls(source.model, source.dataset, digest, summary["label"].astype(np.int64), keys, full)

    def __len__(self) -> int:
        return len(self.labels)


def row_order(first: RowNames, other: RowNames, *, by_row: bool = False) -> NDArray[np.int64] | None:
    """Return the rows of ``other`` that show the images of ``first``, in the order of ``first``.

    Parameters
    ----------
    first, other
        Two models on one dataset.
    by_row
        Pair row i with row i where a store holds no image names. Names decide wherever both have them.

    Returns
    -------
    ndarray of int64 or None
        None where the order is the same already.

    Raises
    ------
    UserError
        Where the stores hold different images or labels, or nothing says which row is which image.
    """
    dataset = first.dataset
    unnamed = [names.model for names in (first, other) if names.keys is None]
    if len(first) != len(other):
        raise UserError(
            f"the stores on {dataset} hold other images: {first.model} has {counted(len(first), 'row')},"
            f" {other.model} has {len(other):,}"
        )
    if unnamed:
        if not by_row:
            raise UserError(f"{' and '.join(unnamed)} on {dataset}: {NO_NAMES}")
        order = None
    elif first.digest and first.digest == other.digest:
        order = None
    else:
        order = _order_by_name(first, other)
    labels = other.labels if order is None else other.labels[order]
    if not np.array_equal(first.labels, labels):
        row = int(np.flatnonzero(first.labels != labels)[0])
        raise UserError(
            f"the stores on {dataset} disagree about the labels: row {row} is {first.labels[row]} in"
            f" {first.model} and {labels[row]} in {other.model}"
        )
    return order


@dataclass(frozen=True, eq=False)
class Paired:
    """Summaries of several models on one dataset whose rows show the same images in the same order.

    Attributes
    ----------
    sources, summaries
        One each a model.
    orders
        Rows of each store in the common order; None where they are in it already.
    by
        ``name``, or ``row`` where one of the stores holds no image names.
    left_out
        Model -> why it could not be paired with the others.
    """

    sources: list[Source]
    summaries: list[Summary]
    orders: list[NDArray[np.int64] | None]
    by: str
    left_out: dict[str, str]


def paired_summaries(
    sources: Sequence[Source],
    settings: Settings,
    *,
    pair_by_row: bool = False,
    leave_out: bool = False,
    threads: int = 1,
    statistics: frozenset[str] = frozenset(),
) -> Paired:
    """Read the summaries of several models on one dataset and put their rows in one order.

    Parameters
    ----------
    sources
        Stores of the models on the dataset.
    settings
        Options.
    pair_by_row
        Pair row i with row i where a store holds no image names.
    leave_out
        Keep the largest number of models that can be paired, and say why the others are left out.
    threads
        Threads over the rows of a block.
    statistics
        What is needed beyond the plain statistics (``Suite.statistics``).

    Raises
    ------
    UserError
        Where a summary cannot be made, or rows cannot be paired (unless ``leave_out``).
    """
    summaries: dict[int, Summary] = {}
    left_out: dict[str, str] = {}
    for place, source in enumerate(sources):
        wanted = Wanted(statistics=statistics | {"image_keys"})
        built = build_cases([source], settings, wanted, threads=threads)
        if source.dataset in built.problems:
            reason = f"{source.model}: {built.problems[source.dataset]}"
            if not leave_out:
                raise UserError(reason)
            left_out[source.model] = reason
            continue
        summaries[place] = built.cases[source.dataset].summary
    if not summaries:
        raise UserError(next(iter(left_out.values())))
    names = {place: RowNames.of(sources[place], summary) for place, summary in summaries.items()}
    groups = grouped(names, by_row=pair_by_row)
    best = max(groups, key=len)
    for place in names:
        if place not in best:
            try:
                row_order(names[next(iter(best))], names[place], by_row=pair_by_row)
            except UserError as error:
                if not leave_out:
                    raise
                unnamed = names[place].keys is None and not pair_by_row
                left_out[sources[place].model] = NO_NAMES if unnamed else str(error)
    kept = sorted(best)
    return Paired(
        [sources[place] for place in kept],
        [summaries[place] if (order := best[place]) is None else summaries[place].rows(order) for place in kept],
        [best[place] for place in kept],
        BY_ROW if any(names[place].keys is None for place in kept) else BY_NAME,
        left_out,
    )


def grouped(names: Mapping[int, RowNames], *, by_row: bool = False) -> list[dict[int, NDArray[np.int64] | None]]:
    """Divide the models on one dataset into groups whose rows can be paired.

    Returns
    -------
    list of dict
        For each group: place -> rows in the order of the group's first (None where they are in it already). Stores
        with names come first in a group, so that names decide the order wherever there are some.
    """
    groups: list[dict[int, NDArray[np.int64] | None]] = []
    for place in sorted(names, key=lambda p: names[p].keys is None):
        for group in groups:
            try:
                group[place] = row_order(names[next(iter(group))], names[place], by_row=by_row)
                break
            except UserError:
                continue
        else:
            groups.append({place: None})
    return groups


def _order_by_name(first: RowNames, other: RowNames) -> NDArray[np.int64] | None:
    assert first.keys is not None
    assert other.keys is not None
    if np.unique(first.keys).size == len(first):
        order = _matched(first.keys, other.keys)
    else:  # the same file name in several folders: the label distinguishes class folders
        order = _matched(*(_with_labels(names) for names in (first, other)))
        if order is None:
            order = _by_full_names(first, other)
    if order is None:
        shared = np.isin(first.keys, other.keys).sum()
        raise UserError(
            f"the stores on {first.dataset} hold other images: {shared:,} of the {len(first):,} file names of"
            f" {first.model} are in {other.model}"
        )
    return None if np.array_equal(order, np.arange(len(order))) else order


def _matched(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return where each wanted key is among those found; None where both are not the same set of different keys."""
    by_wanted, by_found = np.argsort(wanted, kind="stable"), np.argsort(found, kind="stable")
    ordered = wanted[by_wanted]
    if not np.array_equal(ordered, found[by_found]) or (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.empty(len(wanted), np.int64)
    order[by_wanted] = by_found
    return order


def _with_labels(names: RowNames) -> NDArray[np.int64]:
    assert names.keys is not None
    # An odd multiplier spreads the labels over all 64 bits; overflow wraps, which is meant.
    return names.keys ^ (names.labels.astype(np.int64) * np.int64(0x9E3779B97F4A7C15 - (1 << 64)))


def _by_full_names(first: RowNames, other: RowNames) -> NDArray[np.int64] | None:
    if first.full_names is None or other.full_names is None:
        raise UserError(
            f"the stores on {first.dataset} cannot be paired: file names repeat in different folders, and summaries"
            " keep no folders. Use the prediction stores"
        )
    place = {name: row for row, name in enumerate(other.full_names())}
    try:
        return np.array([place[name] for name in first.full_names()], np.int64)
    except KeyError:
        return None
