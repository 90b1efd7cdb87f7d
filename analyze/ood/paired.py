"""Detectors, of one model or of several, against each other on the same images: tests of every pair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyze.annotations import image_keys
from analyze.evaluate.pairing import BY_NAME, BY_ROW, RowNames, row_order
from analyze.fits.base import Reason
from analyze.intervals import PairedDifference
from analyze.intervals.detection_pairs import NAMES, SortedScores
from analyze.intervals.influences import Influence, check_comparable, detection_influence, paired_detection
from analyze.metrics.registry import direction
from analyze.ood.inputs import OodOptions, ood_sets
from analyze.ood.scoring import Scored, Scores, models_of, scored
from cache_schema.format.row_rules import has_image_names
from closerlook_common.errors import CacheError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore

METRICS = ("auroc", "fpr95_id")
"""Numbers that are compared where none are named."""


@dataclass(frozen=True, eq=False)
class Contest:
    """Detectors on one OOD set by one metric, over the images that all models could read.

    Attributes
    ----------
    dataset, metric, higher
        The OOD set, the number, and whether higher is better.
    n
        ID and OOD images.
    entries
        (model, detector) of each.
    values
        Its number.
    best
        Place of the best entry.
    differences
        (place, later place) -> first less second.
    reasons
        (model, detector) -> why it has no number, or is not tested.
    paired_by
        ``name`` of the image, or ``row``.
    """

    dataset: str
    metric: str
    higher: bool
    n: int
    entries: tuple[tuple[str, str], ...]
    values: tuple[float, ...]
    best: int
    differences: Mapping[tuple[int, int], PairedDifference]
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    paired_by: str = BY_NAME


def compare_detectors(
    cache: Cache,
    options: OodOptions,
    *,
    metrics: Sequence[str] = METRICS,
    datasets: Sequence[str] | None = None,
    pair_by_row: bool = False,
) -> tuple[list[Contest], dict[str, str]]:
    """Score detectors on the OOD sets that all models have, and test every pair on the same images.

    Parameters
    ----------
    cache
        An open cache.
    options
        Detectors, models and sets, as ``analyze.ood.choices.checked`` returns it.
    metrics
        Of ``analyze.intervals.detection_pairs.NAMES``.
    datasets
        OOD sets; all when None.
    pair_by_row
        Pair row i with row i where a store holds no image names.

    Returns
    -------
    tuple
        One contest an OOD set and metric, and OOD set -> why it is not compared.

    Raises
    ------
    UserError
        For another metric, fewer than two detectors to compare, conventions other than the defaults, rows that cannot
        be paired, or sets of which none can be compared.
    """
    unknown = [name for name in metrics if name not in NAMES]
    if unknown:
        raise UserError(f"no paired test of {unknown[0]}; there is one of {', '.join(NAMES)}")
    if options.threshold != "first" or options.aupr != "average_precision":
        raise UserError("the paired tests are of [ood] threshold = 'first' and aupr = 'average_precision'")
    models = models_of(cache, options)
    if len(models) * len(options.detectors) < 2:
        raise UserError("name two detectors or more, or two models or more, to compare")
    per_model = {name: scored(cache, name, options, shifts=False) for name in models}
    shared = [ood_sets(cache, name, options) for name in models]
    wanted = [name for name in dict.fromkeys(itertools.chain(*shared)) if datasets is None or name in datasets]
    inside, by = _aligned(cache, options.id_dataset, per_model, inside=True, by_row=pair_by_row)
    found: list[Contest] = []
    problems: dict[str, str] = {}
    for dataset in wanted:
        lacking = [model for model, sets in zip(models, shared, strict=True) if dataset not in sets]
        if lacking:
            problems[dataset] = f"no store of {', '.join(lacking)}"
            continue
        try:
            outside, how = _aligned(cache, dataset, per_model, inside=False, by_row=pair_by_row)
        except (CacheError, UserError) as error:
            problems[dataset] = str(error)
            continue
        reasons = {
            (model, fit.name): found.text
            for model, own in per_model.items()
            for fit, found in own.fits.items()
            if isinstance(found, Reason)
        }
        by_row = BY_ROW if BY_ROW in (by, how) else BY_NAME
        found += _contests(dataset, metrics, inside, outside, reasons, by_row, options.confidence_level)
    return found, problems


Entry = tuple[str, str]
Columns = dict[Entry, NDArray[np.float64]]


def _contests(
    dataset: str,
    metrics: Sequence[str],
    inside: Columns,
    outside: Columns,
    reasons: Mapping[Entry, str],
    paired_by: str,
    level: float,
) -> Iterator[Contest]:
    sides: dict[Entry, tuple[SortedScores, SortedScores]] = {}
    reasons = dict(reasons)
    for entry in inside:
        if entry not in outside:
            reasons.setdefault(entry, f"no scores on {dataset}")
            continue
        columns = (inside[entry], outside[entry])
        if not all(column.size and np.isfinite(column).all() for column in columns):
            reasons.setdefault(entry, "a score is not finite")
            continue
        sides[entry] = (SortedScores.of(columns[0]), SortedScores.of(columns[1]))
    for metric in metrics:
        influences: dict[Entry, Influence] = {}
        untested: dict[Entry, str] = {}
        for entry, pair in sides.items():
            influences[entry] = detection_influence(metric, *pair)
            try:
                check_comparable(metric, *pair)
            except UserError as error:
                untested[entry] = str(error)
        if len(influences) >= 2:
            yield contest_of(dataset, metric, influences, untested, level=level, reasons=reasons, paired_by=paired_by)


def contest_of(
    dataset: str,
    metric: str,
    influences: Mapping[Entry, Influence],
    untested: Mapping[Entry, str],
    *,
    level: float,
    reasons: Mapping[Entry, str] = MappingProxyType({}),
    paired_by: str = BY_NAME,
) -> Contest:
    """Test every pair of entries on one OOD set.

    Parameters
    ----------
    dataset, metric
        The OOD set and the number.
    influences
        Of each entry, all on the same images in the same order.
    untested
        Entry -> why it is not tested.
    level
        Nominal coverage of the intervals.
    reasons, paired_by
        As of `Contest`.
    """
    entries = tuple(influences)
    values = tuple(found.value for found in influences.values())
    higher = direction(metric) == "higher"
    differences = {
        (i, j): _difference(influences[first], influences[second], first in untested or second in untested, level)
        for (i, first), (j, second) in itertools.combinations(enumerate(entries), 2)
    }
    sides = next(iter(influences.values()))
    return Contest(
        dataset=dataset,
        metric=metric,
        higher=higher,
        n=sides.inside.size + sides.outside.size,
        entries=entries,
        values=values,
        best=int(np.argmax(values) if higher else np.argmin(values)),
        differences=differences,
        reasons={**reasons, **untested},
        paired_by=paired_by,
    )


def _difference(first: Influence, second: Influence, untested: bool, level: float) -> PairedDifference:
    found = paired_detection(first, second, level=level)
    if untested and found.method != "equal":
        return replace(found, low=np.nan, high=np.nan, p_value=np.nan, method="too few")
    return found


def _aligned(
    cache: Cache, dataset: str, per_model: Mapping[str, Scored], *, inside: bool, by_row: bool
) -> tuple[Columns, str]:
    """Return the scores of every entry on the images that all models have, in one order, and how they were paired.

    Raises
    ------
    UserError
        Where stores hold different images, or no image is left.
    """
    stores = {
        model: found.inputs.store if inside else cache.store(model, dataset) for model, found in per_model.items()
    }
    names = {model: _names(store, model, dataset) for model, store in stores.items()}
    first = next(iter(names.values()))
    orders = {model: row_order(first, own, by_row=by_row) for model, own in names.items()}
    used: dict[str, NDArray[np.bool_]] = {}
    for model, found in per_model.items():
        chosen = found.evaluated if inside else stores[model].valid
        order = orders[model]
        used[model] = chosen if order is None else chosen[order]
    everyone = np.logical_and.reduce(list(used.values()))
    if not everyone.any():
        raise UserError(f"no image of {dataset} could be read by all models")
    columns: Columns = {}
    for model, found in per_model.items():
        scores: Scores = found.inside if inside else found.outside[dataset]
        chosen = found.evaluated if inside else stores[model].valid
        for detector, values in scores.items():
            whole = np.full(len(chosen), np.nan)
            whole[chosen] = values
            order = orders[model]
            columns[model, detector] = (whole if order is None else whole[order])[everyone]
    unnamed = len(names) > 1 and any(own.keys is None for own in names.values())
    return columns, BY_ROW if unnamed else BY_NAME


def _names(store: PredictionStore, model: str, dataset: str) -> RowNames:
    """Return what distinguishes the rows of a store."""
    named = has_image_names(store.record, store.image_ids)
    keys = image_keys(store.image_ids) if named else None
    digest = store.dataset.digest if named else ""
    return RowNames(model, dataset, digest, store.labels.astype(np.int64), keys, lambda: store.image_ids)
