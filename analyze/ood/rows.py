"""The numbers of one model's detectors as rows of the result table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.fits.base import Reason
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.influences import detection_influence
from analyze.intervals.set_means import Part, SetMeans
from analyze.metrics.registry import direction
from analyze.ood.bounds import leave_out_nan, mean_of, part_of_row, sorted_scores, with_interval
from analyze.ood.effects import Effects, effect_of, images_of
from analyze.ood.inputs import OodOptions, ood_sets, patches_apart
from analyze.ood.scoring import SECTIONS, Advance, Scored, Scores, options_of, scored, stores_of
from analyze.reading.class_spaces import stores_apart
from analyze.results import ResultRow, card_cells
from analyze.settings import Settings, canonical
from analyze.suites.detection import METRICS
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore


def score_model(
    cache: Cache,
    model: str,
    options: OodOptions,
    *,
    advance: Advance = lambda _rows: None,
    note: Callable[[str], None] = lambda _text: None,
    effects: Effects | None = None,
) -> list[ResultRow]:
    """Fit the detectors on one model's stores and score its datasets.

    Parameters
    ----------
    cache
        An open cache.
    model
        Id of the model.
    options
        What to do.
    advance
        Called with the number of rows that were scored.
    note
        Called with a line for each detector that gives NaN for some images of a set: these images are left out of its
        numbers, and their names are in the line.
    effects
        Filled with what each image adds to the AUROCs, for tests of detectors against each other.

    Returns
    -------
    list of ResultRow
        Five metrics an OOD set and detector, their means over near, far and all sets, and the same with shifted sets
        among the in-distribution rows (option ``full_spectrum``). A detector that cannot run has its reason.
    """
    found = scored(cache, model, options, advance=advance)
    store = found.inputs.store
    inside = _Side(store, found.evaluated, leave_out_nan(store, found.evaluated, found.inside, note))
    sides: dict[str, _Side] = {}
    for name, scores in found.outside.items():
        store = cache.store(model, name)
        sides[name] = _Side(store, store.valid, leave_out_nan(store, store.valid, scores, note))
    for name, scores in zip(found.shifted, found.spectrum, strict=True):
        store = cache.store(model, name)
        leave_out_nan(store, store.valid, scores, note)

    def keep(row: ResultRow, pair: Pair, part: Part) -> None:
        """Keep what the images add to a number."""
        low, high = pair
        if effects is None or row.value is None or low is None or high is None:
            return
        influence = detection_influence(row.metric, low, high) if isinstance(part, str) else part.influence
        places = (inside.rows_of(row.score), sides[row.dataset].rows_of(row.score))
        images = (inside.images, sides[row.dataset].images)
        effects.setdefault(row.score, {})[row.dataset] = effect_of(
            influence, places, images, part if isinstance(part, str) else ""
        )

    return list(_rows(cache, model, found, options, keep))


Pair = tuple[SortedScores | None, SortedScores | None]
Keep = Callable[[ResultRow, Pair, Part], None]


@dataclass(frozen=True, eq=False)
class _Side:
    """Which rows of a store the scores are of.

    Attributes
    ----------
    store
        The store.
    chosen
        (n,) rows that are scored.
    lost
        Detector -> which of these have no score.
    """

    store: PredictionStore
    chosen: NDArray[np.bool_]
    lost: Mapping[str, NDArray[np.bool_]]

    def rows_of(self, detector: str) -> NDArray[np.bool_]:
        """Return the rows of the store that a detector has scores of, (n,)."""
        if detector not in self.lost:
            return self.chosen
        rows = self.chosen.copy()
        rows[self.chosen] = ~self.lost[detector]
        return rows

    @cached_property
    def images(self) -> str:
        """Equal for stores of the same images in the same order."""
        return images_of(self.store)


def _rows(cache: Cache, model: str, found: Scored, options: OodOptions, keep: Keep) -> Iterator[ResultRow]:
    inputs, inside, outside, shifted = found.inputs, found.inside, found.outside, found.shifted
    card = inputs.store.model
    distances, taken = ood_sets(cache, model, options), options.settings.only(*SECTIONS)
    stores = stores_of(cache, inputs, distances)
    apart = {name: stores_apart(inputs.store, cache.store(model, name)) for name in (*distances, *shifted)}
    for fit, fitted in found.fits.items():
        name, needs = fit.name, fit.kind.needs
        given = options_of(fit, options, fitted)
        reason = fitted.text if isinstance(fitted, Reason) else ""
        blank = ResultRow(
            model=card.id,
            dataset="",
            metric="",
            command="ood",
            id_dataset=options.id_dataset,
            score=name,
            options=canonical(given),
            metric_version=fit.version,
            head=inputs.head.prompt_set if inputs.head is not None else "",
            role="ood",
            **card_cells(card),
        )
        own = inside.get(name)
        reasons = dict.fromkeys(distances, reason)
        if needs.logits and not reason:
            reasons = apart
        if needs.patches and not reason:
            reasons = {other: apart[other] or patches_apart(inputs.store, cache.store(model, other)) for other in apart}
        yield from _numbers(blank, own, outside, distances, stores, taken, reasons, keep)
        if shifted and not reason:
            wide = replace(blank, options=canonical({**given, "full_spectrum": list(shifted)}))
            if joint := next((reasons[name] for name in shifted if reasons.get(name)), ""):
                reasons = dict.fromkeys(distances, joint)
            joined = None if own is None else np.concatenate([own, *(s[name] for s in found.spectrum if name in s)])
            yield from _numbers(wide, joined, outside, distances, stores, taken, reasons)


def _numbers(
    blank: ResultRow,
    inside: NDArray[np.float32] | None,
    outside: Mapping[str, Scores],
    distances: Mapping[str, str],
    stores: Mapping[str, str],
    taken: Settings,
    reasons: Mapping[str, str],
    keep: Keep = lambda _row, _pair, _part: None,
) -> Iterator[ResultRow]:
    found: dict[str, dict[str, ResultRow]] = {metric: {} for metric in METRICS}
    known, sums = sorted_scores(inside), SetMeans()
    for dataset in distances:
        theirs = outside[dataset].get(blank.score)
        here = replace(blank, dataset=dataset, store=stores[dataset])
        pair = (known, sorted_scores(theirs))
        for metric in METRICS:
            blank_row = replace(here, metric=metric, direction=direction(metric))
            row = _number(blank_row, reasons.get(dataset, ""), inside, theirs, taken)
            row = with_interval(row, *pair, taken)
            found[metric][dataset] = row
            part = part_of_row(row, *pair, taken)
            sums.add(metric, distances[dataset], dataset, part)
            if metric == "auroc":
                keep(row, pair, part)
            yield row
    for metric, rows in found.items():
        for subset in ("near", "far", "all"):
            chosen = [row for name, row in rows.items() if subset in ("all", distances[name])]
            if chosen:
                here = replace(blank, metric=metric, direction=direction(metric), subset=subset)
                yield mean_of(here, chosen, sums, taken)


def _number(
    row: ResultRow,
    reason: str,
    inside: NDArray[np.float32] | None,
    outside: NDArray[np.float32] | None,
    taken: Settings,
) -> ResultRow:
    if reason:
        return replace(row, reason=reason)
    if inside is None or outside is None:
        return replace(row, reason=f"no rows with what {row.score} needs")
    at: dict[str, Any] = {"threshold": taken["ood"]["threshold"]}
    how: dict[str, Any] = {"method": taken["ood"]["aupr"]}
    try:
        value = {
            "auroc": lambda: metrics.auroc(inside, outside),
            "fpr95_id": lambda: metrics.fpr_at_tpr(inside, outside, positive="id", **at),
            "fpr95_ood": lambda: metrics.fpr_at_tpr(inside, outside, positive="ood", **at),
            "aupr_in": lambda: metrics.aupr(inside, outside, positive="id", **how),
            "aupr_out": lambda: metrics.aupr(inside, outside, positive="ood", **how),
        }[row.metric]()
    except UserError as error:
        return replace(row, reason=str(error))
    return replace(row, value=value, n=len(inside) + len(outside))
