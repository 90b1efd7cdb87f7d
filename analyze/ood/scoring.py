"""The detectors fitted on one model's stores, and its scores on every set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import row_tiles
from analyze.evaluate import choose
from analyze.fits.base import Fitted, Reason
from analyze.fits.detector_inputs import READ_ROWS, ModelInputs, held_back
from analyze.fits.detectors import DetectorFit, FittedDetector
from analyze.ood.inputs import OodOptions, find_inputs, ood_sets, spectrum_sets
from analyze.results import store_digests
from analyze.settings import canonical
from closerlook_common.errors import CacheError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore

SECTIONS = ("ood", "bootstrap", "validation")
"""Sections of the options that every number reads, besides those of its fit."""

Scores = dict[str, NDArray[np.float32]]
Advance = Callable[[int], None]


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


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of one model's detectors.

    Attributes
    ----------
    inputs
        Its stores.
    fits
        The detectors, each fitted or with the reason why it cannot run.
    evaluated
        (n,) rows of the in-distribution store that are scored.
    inside, outside, spectrum
        Scores by detector of these rows, of the valid rows of each OOD set, and of each of ``shifted``.
    shifted
        Shifted sets that join the in-distribution rows.
    """

    inputs: ModelInputs
    fits: dict[DetectorFit, FittedDetector | Reason]
    evaluated: NDArray[np.bool_]
    inside: Scores
    outside: dict[str, Scores]
    shifted: tuple[str, ...]
    spectrum: list[Scores]


def scored(
    cache: Cache, model: str, options: OodOptions, *, advance: Advance = lambda _rows: None, shifts: bool = True
) -> Scored:
    """Fit one model's detectors and score its sets as for ``score_model``, without shifted sets if not ``shifts``."""
    inputs = find_inputs(cache, model, options)
    rows = _fit_rows(inputs, options)
    fits = {fit: _attempt(fit, inputs, rows, options) for fit in map(DetectorFit, options.detectors)}
    own = inputs.validation is not None and inputs.validation.dataset.id == options.id_dataset
    evaluated = inputs.store.valid & ~rows if own else inputs.store.valid
    sets = ood_sets(cache, model, options)
    shifted = spectrum_sets(cache, model, options) if shifts else ()
    stores = [cache.store(model, name) for name in (*sets, *shifted)]

    def score(running: list[FittedDetector]) -> list[Scores]:
        first = score_store(inputs.store, evaluated, running, advance)
        return [first, *(score_store(store, None, running, advance) for store in stores)]

    try:
        inside, *others = score(_fitted(fits.values()))
    except UserError:
        # one of them cannot read these logits: it gets its reason, the others their numbers
        fits = {fit: _tried(found, score) for fit, found in fits.items()}
        inside, *others = score(_fitted(fits.values()))
    outside = dict(zip(sets, others, strict=False))
    return Scored(inputs, fits, evaluated, inside, outside, shifted, others[len(sets) :])


def _attempt(
    fit: DetectorFit, inputs: ModelInputs, rows: NDArray[np.bool_], options: OodOptions
) -> FittedDetector | Reason:
    try:
        return fit.fit(inputs, rows, options.settings.only(*fit.sections))
    except UserError as error:
        return Reason(str(error))


def _fitted(found: Iterable[FittedDetector | Reason]) -> list[FittedDetector]:
    return [fitted for fitted in found if isinstance(fitted, FittedDetector)]


def _tried(found: FittedDetector | Reason, score: Callable[[list[FittedDetector]], Any]) -> FittedDetector | Reason:
    """Return a detector, or its reason where it cannot score."""
    try:
        score(_fitted([found]))
    except UserError as error:
        return Reason(str(error))
    return found


def _fit_rows(inputs: ModelInputs, options: OodOptions) -> NDArray[np.bool_]:
    """Return the rows of the validation store that detectors are fitted on, none of them where there is no store."""
    if options.validation is None or inputs.validation is None:
        return np.zeros(0, np.bool_)
    chosen = held_back(inputs.validation, options.validation[1])
    if inputs.validation.dataset.id == options.id_dataset and chosen.all():
        raise UserError(
            f"all rows of {options.id_dataset} for fitting leaves none to evaluate: give a share,"
            f" `validation` {options.id_dataset}:0.1"
        )
    return chosen


def score_store(
    store: PredictionStore, chosen: NDArray[np.bool_] | None, fitted: list[FittedDetector], advance: Advance
) -> Scores:
    """Score the valid rows of a store, block by block; detector -> scores."""
    chosen = store.valid if chosen is None else chosen
    has_patches = "patches" in store.parts
    usable = [
        found
        for found in fitted
        if (store.has_features or not found.scorer.needs.features) and (has_patches or not found.scorer.needs.patches)
    ]
    features = any(found.scorer.needs.features for found in usable)
    patches = any(found.scorer.needs.patches for found in usable)
    parts: dict[str, list[NDArray[np.float32]]] = {found.name: [] for found in usable}
    for block in store.blocks(READ_ROWS, logits=store.has_logits, features=features):
        mask = chosen[block.start : block.stop]
        if usable and mask.any():
            f, z = (None if v is None else v[mask] for v in (block.features, block.logits))
            p = store.read("patch_score", block.start, block.stop)[mask] if patches else None
            for _, tile in row_tiles([found.scorer for found in usable], f, z, p):
                for found in usable:
                    for name, scores in found.columns(tile).items():
                        parts[name].append(scores)
        advance(block.stop - block.start)
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def options_of(fit: DetectorFit, options: OodOptions, found: Fitted | Reason | None = None) -> dict[str, Any]:
    """Return what names a row's variant: the options of the fit, and how the numbers are taken that are made with it.

    Parameters
    ----------
    found
        The fit; None leaves out on what it was fitted.
    """
    given = fit.options(options.settings.only(*fit.sections), options.id_dataset, found)
    taken = options.settings.only(*SECTIONS)
    if taken["validation"]["dataset"] == options.id_dataset:
        given["held_out"] = 1 - taken["validation"]["share"]
    return {**given, **taken.changed("ood"), **taken.changed("bootstrap")}


def asked_options(detector: str, options: OodOptions) -> str:
    """Return the options of a detector's rows, without what it was fitted on."""
    return canonical(options_of(DetectorFit(detector), options))


def stores_of(cache: Cache, inputs: ModelInputs, datasets: Iterable[str]) -> dict[str, str]:
    """Return which stores a model's numbers on each dataset come from, as the result table names them."""
    used = (inputs.store, inputs.head, inputs.reference, inputs.negatives, inputs.validation)
    own = [store.digest for store in used if store is not None]
    model = inputs.store.model.id
    return {name: store_digests(*dict.fromkeys((*own, cache.store(model, name).digest))) for name in datasets}


def availability(cache: Cache, options: OodOptions) -> dict[str, dict[str, str]]:
    """Return model -> detector -> why it cannot run (empty where it can)."""
    found: dict[str, dict[str, str]] = {}
    for model in models_of(cache, options):
        try:
            inputs = find_inputs(cache, model, options)
        except CacheError as error:
            found[model] = dict.fromkeys(options.detectors, str(error))
            continue
        found[model] = {
            fit.name: fit.lacks(inputs, options.settings.only(*fit.sections))
            for fit in map(DetectorFit, options.detectors)
        }
    return found
