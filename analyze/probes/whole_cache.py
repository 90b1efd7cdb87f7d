"""Probes for the models of a cache: which models and datasets, what is written, and why some are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyze.evaluate.whole_cache import choose
from analyze.probes.derived import Target, write_head_and_reference, write_predictions
from analyze.probes.fitting import fit_probe
from analyze.probes.inputs import TOKENS, part_of, plainest, why_not
from analyze.probes.options import ProbeOptions
from analyze.probes.references import ProbeReference, find_reference
from analyze.reading.sources import USED
from cache_schema.copying.roles import copy_roles
from closerlook_common.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore


@dataclass
class ProbedCache:
    """What came of it.

    Attributes
    ----------
    models
        Ids of the probed models, in order.
    facts
        Id -> what its fit gave; empty where nothing had to be fitted.
    written, unchanged
        Prediction stores written now, and there already.
    left_out
        Model, or model and dataset -> why there is no probe.
    """

    models: list[str] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: int = 0
    unchanged: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def probe_cache(
    cache: Cache,
    to: str | Path,
    options: ProbeOptions,
    *,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    backend: str = "zarr",
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> ProbedCache:
    """Fit probes for models of a cache, and write them as models of their own.

    Parameters
    ----------
    cache
        An open cache.
    to
        Folder of the cache that the stores are written to.
    options
        How probes are fitted.
    models
        Ids or patterns; those that have features and no logits when None.
    datasets
        Ids or patterns; every set in the cache when None.
    backend
        ``zarr`` or ``hdf5``.
    progress
        Called with (model, models done, models in all).

    Raises
    ------
    UserError
        No model can be probed.
    """
    stores = cache.stores("predictions")
    chosen = _models(stores, models)
    sets = set(choose({s.dataset_id for s in stores}, datasets, "dataset"))
    if Path(to).absolute() != cache.path.absolute():
        copy_roles(cache.place, Path(to))
    done = ProbedCache()
    for count, model in enumerate(chosen, 1):
        own = [s for s in stores if s.model_id == model]
        try:
            _probe_model(cache, Path(to), own, sets, options, backend, done)
        except (CloserlookError, OSError) as error:
            done.left_out[model] = str(error)
        progress(model, count, len(chosen))
    return done


def _models(stores: Sequence[Any], patterns: Sequence[str] | None) -> list[str]:
    """Return the models to probe: those named, else those without logits."""
    names = {s.model_id for s in stores}
    if patterns:
        return choose(names, patterns, "model")
    with_logits = {s.model_id for s in stores if s.has("logits")}
    if not names - with_logits:
        some = "every model of this cache has logits: name those to probe" if names else "this cache has no predictions"
        raise UserError(some)
    return sorted(names - with_logits)


def _probe_model(
    cache: Cache,
    to: Path,
    own: Sequence[Any],
    sets: set[str],
    options: ProbeOptions,
    backend: str,
    done: ProbedCache,
) -> None:
    card = own[0].model
    if "probe" in card.extra:
        raise UserError("it is a probe already")
    if all(why_not(store, options.features) for store in own):
        if options.features not in TOKENS:
            raise UserError("its stores hold no features, which a probe is fitted on")
        how = f"'extract --arrays {part_of(options.features)}' stores those of vision transformers"
        raise UserError(f"its stores hold no tokens, which a probe is fitted on: {how}")
    reference = find_reference(cache, card.id, options.reference, options.features)
    stores = _datasets(own, sets, reference, options.features, done)
    if not stores:
        raise UserError("it has no other dataset with features, of the reference's classes, to predict")
    for variant in options.variants():
        target = Target(to, card, variant, reference, backend)
        missing = target.missing(stores)
        done.unchanged += len(stores) - len(missing)
        if missing or not target.has_head():
            try:
                probe = fit_probe(variant, reference)
            except UserError as error:
                done.left_out[target.name] = str(error)
                continue
            done.facts[target.name] = probe.facts
            if variant.whole:
                write_head_and_reference(target, probe, _class_names(cache, reference))
            for store in missing:
                done.written += write_predictions(target, probe, store)
                store.release()
        done.models.append(target.name)


def _datasets(
    own: Sequence[Any], sets: set[str], reference: ProbeReference, features: str, done: ProbedCache
) -> list[PredictionStore]:
    """Return the newest store of each dataset that a probe can predict; the others are left out with a reason."""
    found: list[PredictionStore] = []
    for name in sorted({s.dataset_id for s in own} & sets):
        stores = [s for s in own if s.dataset_id == name]
        card = stores[0].dataset
        if name == reference.card.id or card.role not in USED:
            continue
        what = f"{stores[0].model.id} on {name}"
        with_features = [s for s in stores if not why_not(s, features)]
        if not with_features:
            done.left_out[what] = why_not(stores[0], features)
        elif card.role != "ood" and card.class_space != reference.card.class_space:
            done.left_out[what] = (
                f"its classes are {card.class_space or 'not named'}, those of {reference.card.id} are"
                f" {reference.card.class_space or 'not named'}"
            )
        else:
            found.append(plainest(with_features))
    return found


def _class_names(cache: Cache, reference: ProbeReference) -> list[str]:
    """Return the names of the reference's classes: of its card, else of a head of the class space, else numbers."""
    card, classes = reference.card, reference.bank.n_classes
    if len(card.class_names) == classes:
        return list(card.class_names)
    for head in cache.stores("head"):
        if head.details["class_space"] == card.class_space and len(head) == classes:
            return head.read_text("class_name")
    return [str(index) for index in range(classes)]
