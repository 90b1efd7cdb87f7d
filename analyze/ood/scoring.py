"""The detectors fitted on one model's stores, and its scores on every set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.detectors import Detector, Fitted, Validation, get, score_all, sweep
from analyze.detectors.clip_scores import far_words
from analyze.evaluate import choose
from analyze.ood.inputs import (
    READ_ROWS,
    ModelInputs,
    OodOptions,
    find_inputs,
    held_back,
    ood_sets,
    read_validation,
    source_of,
    spectrum_sets,
)
from analyze.reading.class_spaces import stores_apart
from analyze.results import store_digests
from analyze.settings import canonical, study_defaults
from closerlook_common.errors import CacheError, UserError
from closerlook_common.plugins import digest_of

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore

DETECTOR_VERSION = 4
"""Moves whenever a detector would give another score for the same stores."""

CODE = "plugin"
"""Option of a row whose detector is a plug-in: the digest of its code."""

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


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of one model's detectors.

    Attributes
    ----------
    inputs
        Its stores.
    candidates
        The detectors, with the reason of each that cannot run.
    evaluated
        (n,) rows of the in-distribution store that are scored.
    inside, outside, spectrum
        Scores by detector of these rows, of the valid rows of each OOD set, and of each of ``shifted``.
    shifted
        Shifted sets that join the in-distribution rows.
    """

    inputs: ModelInputs
    candidates: list[Candidate]
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
    rows_for_fitting, validation = _validation(inputs, options)
    candidates = [_fit(cache, name, inputs, validation, options) for name in options.detectors]
    evaluated = inputs.store.valid & ~rows_for_fitting
    sets = ood_sets(cache, model, options)
    shifted = spectrum_sets(cache, model, options) if shifts else ()
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
    return Scored(inputs, candidates, evaluated, inside, outside, shifted, others[len(sets) :])


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
            f" `validation` {options.id_dataset}:0.1"
        )
    return chosen if same else none, read_validation(inputs.validation, chosen)


def score_store(
    store: PredictionStore, chosen: NDArray[np.bool_] | None, detectors: list[Fitted], advance: Advance
) -> Scores:
    """Score the valid rows of a store, block by block; detector -> scores."""
    chosen = store.valid if chosen is None else chosen
    parts: dict[str, list[NDArray[np.float32]]] = {d.name: [] for d in detectors}
    features = store.has_features and any(d.needs.features for d in detectors)
    patches = "patches" in store.parts and any(d.needs.patches for d in detectors)
    usable = [
        d
        for d in detectors
        if (not d.needs.features or store.has_features) and (not d.needs.patches or "patches" in store.parts)
    ]
    for block in store.blocks(READ_ROWS, logits=store.has_logits, features=features):
        mask = chosen[block.start : block.stop]
        f, z = (None if v is None else v[mask] for v in (block.features, block.logits))
        if usable and mask.any():
            given: dict[str, Any] = {"features": f, "logits": z}
            if patches:
                given["patch_scores"] = store.read("patch_score", block.start, block.stop)[mask]
            for detector, scores in zip(usable, score_all(usable, **given), strict=True):
                parts[detector.name].append(scores)
        advance(block.stop - block.start)
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def _fit(cache: Cache, name: str, inputs: ModelInputs, validation: Validation | None, options: OodOptions) -> Candidate:
    detector = get(name, defaults=options.defaults)
    reason = why_not(inputs, name, options)
    if reason:
        return Candidate(detector, None, reason)
    given: dict[str, Any] = {
        "reference": inputs.loaded_reference,
        "head": inputs.head,
        "validation": validation,
        "negatives": inputs.negatives,
    }
    try:
        if options.mined < 1 and detector.needs.negatives:
            given["negatives"] = _mined(inputs, options.mined)
        if options.sweep and sweep(name):
            return _swept(cache, detector, inputs, validation, options, given)
        return Candidate(detector, detector.fit(**given))
    except UserError as error:
        return Candidate(detector, None, str(error))


def _mined(inputs: ModelInputs, share: float) -> NDArray[np.float32]:
    """Return the negatives that are furthest from the classes."""
    if inputs.head is None or inputs.negatives is None:
        raise UserError("negatives are chosen by how far they are from the classes of the head, and there is none")
    words = inputs.negatives.weight
    return words[far_words(words, inputs.head.weight, share)]


def why_not(inputs: ModelInputs, name: str, options: OodOptions) -> str:
    """Return why a detector cannot run on a model, as a row says it; empty where it can."""
    reason = inputs.lacks(name, options.defaults)
    if not reason:
        return ""
    return f"{name}: {reason}" if reason.startswith("the ") else f"{name} {reason}"


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
        raise UserError("`sweep` needs in-distribution rows to compare with: give `validation`, a name or NAME:SHARE")
    grid = sweep(detector.name)
    store = cache.store(inputs.store.model.id, options.sweep)
    if reason := stores_apart(inputs.store, store):
        raise UserError(reason)
    outside = read_validation(store, np.ones(len(store), np.bool_))
    best: tuple[float, Candidate] | None = None
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
    given: dict[str, Any] = {k: v for k, v in candidate.detector.hyper_parameters.items() if v is not None}
    if code := digest_of("detectors", candidate.detector.name):
        given[CODE] = code
    fitted = candidate.fitted
    if fitted is not None and fitted.fitted_on:
        given["fit"] = f"{fitted.fitted_on}:{source_of(fitted.fitted_on, options)}"
    if options.validation is not None and options.validation[0] == options.id_dataset:
        given["held_out"] = 1 - options.validation[1]
    usual = study_defaults()["ood"]
    given |= {name: getattr(options, name) for name in ("threshold", "aupr") if getattr(options, name) != usual[name]}
    if options.confidence_level != study_defaults()["bootstrap"]["confidence_level"]:
        given["confidence_level"] = options.confidence_level
    if options.mined < 1 and candidate.detector.needs.negatives:
        given["mined"] = options.mined
    if options.sweep and sweep(candidate.detector.name):
        given["sweep"] = options.sweep
    return given


def asked_options(detector: str, options: OodOptions) -> str:
    """Return the options of a detector's rows, without what it was fitted on."""
    return canonical(options_of(Candidate(get(detector, defaults=options.defaults), None), options))


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
        found[model] = {name: inputs.lacks(name, options.defaults) for name in options.detectors}
    return found
