"""Post-hoc detectors over a cache: every model, every detector, every OOD set, as rows of the result table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze import metrics
from analyze.detectors import Detector, Fitted, Reference, Validation, get, score_all, sweep
from analyze.evaluate import choose
from analyze.ood.inputs import (
    READ_ROWS,
    ModelInputs,
    OodOptions,
    find_inputs,
    held_back,
    ood_sets,
    read_validation,
    spectrum_sets,
)
from analyze.results import KEY_COLUMNS, ResultRow, card_cells, conform, store_digests, to_frame
from analyze.settings import canonical
from analyze.suites.detection import METRICS
from analyze.suites.registry import direction
from cache_schema.errors import CacheError, UserError

if TYPE_CHECKING:
    from cache_schema.cache import Cache
    from cache_schema.store import PredictionStore

DETECTOR_VERSION = 2
"""Moves whenever a detector would give another score for the same stores."""

Scores = dict[str, NDArray[np.float32]]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Candidate:
    """A detector as it is to be fitted, and how its hyper-parameters came about."""

    detector: Detector
    fitted: Fitted | None
    reason: str = ""


def models_of(cache: Cache, options: OodOptions) -> list[str]:
    """Return the models that have a store of the in-distribution set.

    Raises
    ------
    UserError, StoreNotFoundError
        Where there is none, or a pattern matches nothing.
    """
    names = [s.model.id for s in cache.stores("predictions") if s.dataset.id == options.id_dataset]
    if not names:
        known = sorted({s.dataset.id for s in cache.stores("predictions")})
        raise UserError(f"no model has predictions on {options.id_dataset!r}; datasets: {', '.join(known) or 'none'}")
    return choose(names, None if options.models is None else list(options.models), "model")


def score_model(
    cache: Cache, model: str, options: OodOptions, *, advance: Advance = lambda _rows: None
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

    Returns
    -------
    list of ResultRow
        Five metrics an OOD set and detector, their means over near, far and all sets, and the same with shifted sets
        among the in-distribution rows (option ``full_spectrum``). A detector that cannot run has its reason.
    """
    inputs = find_inputs(cache, model, options)
    rows_for_fitting, validation = _validation(inputs, options)
    candidates = [_fit(cache, name, inputs, validation, options) for name in options.detectors]
    evaluated = inputs.store.valid & ~rows_for_fitting
    sets, shifted = ood_sets(cache, model, options), spectrum_sets(cache, model, options)
    stores = [cache.store(model, name) for name in (*sets, *shifted)]

    def score(running: list[Fitted]) -> list[Scores]:
        first = score_store(inputs.store, evaluated, running, advance)
        return [first, *(score_store(store, None, running, advance) for store in stores)]

    try:
        inside, *others = score([c.fitted for c in candidates if c.fitted is not None])
    except UserError:
        # one of them cannot read these logits: it gets its reason, the others their numbers
        candidates = [_tried(candidate, score) for candidate in candidates]
        inside, *others = score([c.fitted for c in candidates if c.fitted is not None])
    outside = dict(zip(sets, others, strict=False))
    return list(_rows(cache, model, inputs, candidates, options, inside, outside, shifted, others[len(sets) :]))


def _tried(candidate: Candidate, score: Callable[[list[Fitted]], Any]) -> Candidate:
    """Return the candidate, or its reason where it cannot score."""
    try:
        if candidate.fitted is not None:
            score([candidate.fitted])
    except UserError as error:
        return replace(candidate, fitted=None, reason=str(error))
    return candidate


def _validation(inputs: ModelInputs, options: OodOptions) -> tuple[NDArray[np.bool_], Validation | None]:
    none = np.zeros(len(inputs.store), np.bool_)
    if options.validation is None or inputs.validation is None:
        return none, None
    chosen = held_back(inputs.validation, options.validation[1])
    same = inputs.validation.dataset.id == options.id_dataset
    if same and chosen.all():
        raise UserError(
            f"all rows of {options.id_dataset} for fitting leaves none to evaluate: give a share,"
            f" --validation {options.id_dataset}:0.1"
        )
    return chosen if same else none, read_validation(inputs.validation, chosen)


def score_store(
    store: PredictionStore, chosen: NDArray[np.bool_] | None, detectors: list[Fitted], advance: Advance
) -> Scores:
    """Score the valid rows of a store, block by block; detector -> scores."""
    chosen = store.valid if chosen is None else chosen
    parts: dict[str, list[NDArray[np.float32]]] = {d.name: [] for d in detectors}
    features = store.has_features and any(d.needs.features for d in detectors)
    usable = [d for d in detectors if not d.needs.features or store.has_features]
    for block in store.blocks(READ_ROWS, logits=store.has_logits, features=features):
        mask = chosen[block.start : block.stop]
        f, z = (None if v is None else v[mask] for v in (block.features, block.logits))
        if usable and mask.any():
            for detector, scores in zip(usable, score_all(usable, features=f, logits=z), strict=True):
                parts[detector.name].append(scores)
        advance(block.stop - block.start)
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def _fit(cache: Cache, name: str, inputs: ModelInputs, validation: Validation | None, options: OodOptions) -> Candidate:
    detector = get(name, defaults=options.defaults)
    reason = inputs.lacks(name, options.defaults)
    if reason:
        return Candidate(detector, None, f"{name}: {reason}" if reason.startswith("the ") else f"{name} {reason}")
    given: dict[str, Any] = {
        "reference": None if inputs.reference is None else _reference(inputs),
        "head": inputs.head,
        "validation": validation,
        "negatives": inputs.negatives,
    }
    try:
        if options.sweep and sweep(name):
            return _swept(cache, detector, inputs, validation, options, given)
        return Candidate(detector, detector.fit(**given))
    except UserError as error:
        return Candidate(detector, None, str(error))


_LAST: list[tuple[str, Reference]] = []


def _reference(inputs: ModelInputs) -> Reference:
    """Return the model's reference; the one of the model at hand is kept, its statistics serve many detectors."""
    assert inputs.reference is not None
    digest = inputs.reference.digest
    if not _LAST or _LAST[0][0] != digest:
        _LAST[:] = [(digest, Reference.from_store(inputs.reference))]
    return _LAST[0][1]


def _swept(
    cache: Cache,
    detector: Detector,
    inputs: ModelInputs,
    validation: Validation | None,
    options: OodOptions,
    given: Mapping[str, Any],
) -> Candidate:
    """Choose the hyper-parameters of best AUROC between validation rows and the sweep's OOD set."""
    if validation is None:
        raise UserError("--sweep needs in-distribution rows to compare with: give --validation NAME or NAME:SHARE")
    grid = sweep(detector.name)
    outside = read_validation(
        cache.store(inputs.store.model.id, options.sweep),
        np.ones(len(cache.store(inputs.store.model.id, options.sweep)), np.bool_),
    )
    best: tuple[float, Candidate] | None = None
    reason = ""
    for values in itertools.product(*grid.values()):
        changed = dict(zip(grid, values, strict=True))
        try:
            tried = get(detector.name, **{**detector.hyper_parameters, **changed})
            fitted = tried.fit(**given)
            inside_scores = fitted.score(features=validation.features, logits=validation.logits)
            outside_scores = fitted.score(features=outside.features, logits=outside.logits)
            value = metrics.auroc(inside_scores, outside_scores)
        except UserError as error:
            reason = str(error)
            continue
        if best is None or value > best[0]:
            best = value, Candidate(tried, fitted)
    if best is None:
        raise UserError(f"{detector.name}: no value of the sweep can be used: {reason}")
    return best[1]


def options_of(candidate: Candidate, options: OodOptions) -> dict[str, Any]:
    """Return what names a row's variant: hyper-parameters, where it was fitted, how they were chosen."""
    told: dict[str, Any] = {k: v for k, v in candidate.detector.hyper_parameters.items() if v is not None}
    fitted = candidate.fitted
    if fitted is not None and fitted.fitted_on:
        place = "validation" if fitted.fitted_on == "validation" else "reference"
        source = options.reference
        if place == "validation" and options.validation is not None:
            name, share = options.validation
            source = name if share == 1 else f"{name}:{share:g}"
        told["fit"] = f"{fitted.fitted_on}:{source}"
    if options.validation is not None and options.validation[0] == options.id_dataset:
        told["held_out"] = 1 - options.validation[1]
    if options.sweep and sweep(candidate.detector.name):
        told["sweep"] = options.sweep
    return told


def _rows(
    cache: Cache,
    model: str,
    inputs: ModelInputs,
    candidates: list[Candidate],
    options: OodOptions,
    inside: Scores,
    outside: Mapping[str, Scores],
    shifted: tuple[str, ...],
    spectrum: list[Scores],
) -> Iterator[ResultRow]:
    card = inputs.store.model
    distances = ood_sets(cache, model, options)
    stores = _stores(cache, inputs, distances)
    for candidate in candidates:
        name = candidate.detector.name
        told = options_of(candidate, options)
        blank = ResultRow(
            model=card.id,
            dataset="",
            metric="",
            command="ood",
            id_dataset=options.id_dataset,
            score=name,
            options=canonical(told),
            metric_version=DETECTOR_VERSION,
            head=inputs.head.prompt_set if inputs.head is not None else "",
            role="ood",
            **card_cells(card),
        )
        own = inside.get(name)
        yield from _numbers(blank, candidate, own, outside, distances, stores)
        if shifted and candidate.fitted is not None:
            wide = replace(blank, options=canonical({**told, "full_spectrum": list(shifted)}))
            joined = None if own is None else np.concatenate([own, *(s[name] for s in spectrum if name in s)])
            yield from _numbers(wide, candidate, joined, outside, distances, stores)


def _numbers(
    blank: ResultRow,
    candidate: Candidate,
    inside: NDArray[np.float32] | None,
    outside: Mapping[str, Scores],
    distances: Mapping[str, str],
    stores: Mapping[str, str],
) -> Iterator[ResultRow]:
    found: dict[str, dict[str, ResultRow]] = {metric: {} for metric in METRICS}
    for dataset in distances:
        theirs = outside[dataset].get(blank.score)
        here = replace(blank, dataset=dataset, store=stores[dataset])
        for metric in METRICS:
            row = _number(replace(here, metric=metric, direction=direction(metric)), candidate.reason, inside, theirs)
            found[metric][dataset] = row
            yield row
    for metric, rows in found.items():
        for subset in ("near", "far", "all"):
            chosen = [row for name, row in rows.items() if subset in ("all", distances[name])]
            if chosen:
                yield _mean(replace(blank, metric=metric, direction=direction(metric), subset=subset), chosen)


def _number(
    row: ResultRow, reason: str, inside: NDArray[np.float32] | None, outside: NDArray[np.float32] | None
) -> ResultRow:
    if reason:
        return replace(row, reason=reason)
    if inside is None or outside is None:
        return replace(row, reason=f"no rows with what {row.score} needs")
    try:
        value = {
            "auroc": lambda: metrics.auroc(inside, outside),
            "fpr95_id": lambda: metrics.fpr_at_tpr(inside, outside, positive="id"),
            "fpr95_ood": lambda: metrics.fpr_at_tpr(inside, outside, positive="ood"),
            "aupr_in": lambda: metrics.aupr(inside, outside, positive="id"),
            "aupr_out": lambda: metrics.aupr(inside, outside, positive="ood"),
        }[row.metric]()
    except UserError as error:
        return replace(row, reason=str(error))
    return replace(row, value=value, n=len(inside) + len(outside))


def _mean(row: ResultRow, chosen: list[ResultRow]) -> ResultRow:
    row = replace(row, store=",".join(dict.fromkeys(d for c in chosen for d in c.store.split(","))))
    missing = [c for c in chosen if c.value is None]
    if missing:
        return replace(row, reason=missing[0].reason)
    value = float(np.mean([c.value for c in chosen if c.value is not None]))
    return replace(row, value=value, n=sum(c.n or 0 for c in chosen))


def merge(old: pl.DataFrame | None, rows: Iterable[ResultRow]) -> pl.DataFrame:
    """Add rows to a result table; rows of the same model, dataset, metric and variant are replaced."""
    new = to_frame(rows)
    if old is None or old.is_empty():
        return new
    return pl.concat([conform(old).join(new, on=list(KEY_COLUMNS), how="anti"), new])


def _stores(cache: Cache, inputs: ModelInputs, datasets: Iterable[str]) -> dict[str, str]:
    """Return which stores a model's numbers on each dataset come from, as the result table tells them."""
    own = [store.digest for store in (inputs.store, inputs.head, inputs.reference) if store is not None]
    return {name: store_digests(*own, cache.store(inputs.store.model.id, name).digest) for name in datasets}


def is_done(table: pl.DataFrame | None, cache: Cache, model: str, options: OodOptions) -> bool:
    """Whether a table holds a model's rows already, from the same stores and with the same options.

    A run with a sweep chooses its options and is never taken as done.
    """
    if table is None or table.is_empty() or options.sweep:
        return False
    inputs = find_inputs(cache, model, options)
    mine = table.filter(
        (pl.col("model") == model)
        & (pl.col("id_dataset") == options.id_dataset)
        & (pl.col("metric") == "auroc")
        & (pl.col("metric_version") == DETECTOR_VERSION)
    ).select("score", "dataset", "options", "store")
    have = set()
    for score, dataset, text, store in mine.iter_rows():
        told = json.loads(text) if text else {}
        have.add((score, dataset, _plain(told), tuple(told.get("full_spectrum", ())), store))
    shifted = spectrum_sets(cache, model, options)
    outside = ood_sets(cache, model, options)
    stores = _stores(cache, inputs, outside)
    for name in options.detectors:
        plain = options_of(Candidate(get(name, defaults=options.defaults), None), options)
        spectra = {(), shifted} if not inputs.lacks(name, options.defaults) else {()}
        for dataset, store in stores.items():
            if any((name, dataset, _plain(plain), wide, store) not in have for wide in spectra):
                return False
    return True


def _plain(told: Mapping[str, Any]) -> str:
    return canonical({k: v for k, v in told.items() if k not in ("fit", "full_spectrum")})


def availability(cache: Cache, options: OodOptions) -> dict[str, dict[str, str]]:
    """Return model -> detector -> why it cannot run (empty where it can)."""
    found: dict[str, dict[str, str]] = {}
    for model in models_of(cache, options):
        try:
            inputs = find_inputs(cache, model, options)
        except CacheError as error:
            found[model] = dict.fromkeys(options.detectors, str(error))
            continue
        found[model] = {name: inputs.lacks(name, options.defaults) for name in options.detectors}
    return found
