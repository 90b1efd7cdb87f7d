"""What a cache offers detectors of each model: stores, head, reference, validation rows; and why some are missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors import DETECTORS, Head, Reference, Validation, get
from cache_schema.reading.extending import extended
from closerlook_common.errors import CacheError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.kinds.heads import HeadStore
    from cache_schema.reading.kinds.references import ReferenceStore
    from cache_schema.reading.store import PredictionStore

READ_ROWS = 8064
"""Rows read at a time: a whole number of tiles, about one shard."""


@dataclass(frozen=True)
class OodOptions:
    """What ``analyze ood`` was asked for.

    Attributes
    ----------
    id_dataset
        The in-distribution set.
    reference
        The training set whose reference stores detectors are fitted on; None for none.
    detectors
        Names.
    near, far
        OOD sets by distance; by the datasets' cards where both are empty.
    full_spectrum
        Shifted sets that join the in-distribution set; None for all whose card says so, empty for none.
    validation
        Set of in-distribution rows for fitting, and the share of it (chosen by a hash of the image ids).
    sweep
        OOD set on which hyper-parameters are chosen; empty for none.
    defaults
        Set of default hyper-parameters.
    prompt_set
        Of zero-shot heads; None for the default one.
    negatives
        Class space of the head whose weights are embeddings of negative labels.
    mined
        Share of these that are taken: those furthest from the classes.
    models
        Patterns; all when None.
    threshold, aupr
        How FPR@95 and AUPR are taken, as ``[ood]`` of the settings says it.
    confidence_level
        Of the intervals, as ``[bootstrap]`` of the settings says it.
    """

    id_dataset: str
    reference: str | None = None
    detectors: tuple[str, ...] = tuple(DETECTORS)
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    full_spectrum: tuple[str, ...] | None = None
    validation: tuple[str, float] | None = None
    sweep: str = ""
    defaults: str = "openood"
    prompt_set: str | None = None
    negatives: str = ""
    mined: float = 1.0
    models: tuple[str, ...] | None = None
    threshold: str = "first"
    aupr: str = "average_precision"
    confidence_level: float = 0.95

    def __post_init__(self) -> None:
        """Take a name that is given twice once: its rows would be counted twice."""
        for option in ("detectors", "near", "far", "full_spectrum"):
            names = getattr(self, option)
            if names is not None:
                object.__setattr__(self, option, tuple(dict.fromkeys(names)))


@dataclass
class ModelInputs:
    """One model's stores, and a reason in place of each that is missing."""

    store: PredictionStore
    head: HeadStore | None = None
    reference: ReferenceStore | None = None
    negatives: HeadStore | None = None
    validation: PredictionStore | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    @cached_property
    def loaded_reference(self) -> Reference | None:
        """The reference in memory, None where there is none; its statistics serve many detectors."""
        return None if self.reference is None else Reference.from_store(self.reference)

    def lacks(self, name: str, defaults: str = "openood") -> str:
        """Return why a detector cannot run, empty where it can."""
        detector = get(name, defaults=defaults)
        needs = detector.needs
        if needs.logits and not self.store.has_logits:
            return "the store holds no logits"
        if needs.features and not self.store.has_features:
            return "the store holds no features"
        if detector.uses_level and self.store.logits_kind != "logits":
            return "needs logits; the store holds log-probabilities"
        if detector.zero_shot_only and (self.head is None or self.head.logit_scale is None):
            if self.store.model.logit_scale is None:
                return "is for zero-shot models: this one's logits are not cosines"
            if self.head is None:
                return f"needs the head, whose scale the logits carry: {self.reasons.get('head', 'there is none')}"
        if needs.patches and (reason := without_patches(self.store, self.head)):
            return reason
        clause = detector.missing(
            reference=self.reference is not None,
            bank=self.reference is not None and len(self.reference.bank_labels) > 0,
            head=self.head is not None,
            validation=self.validation is not None,
            negatives=self.negatives is not None,
        )
        if clause:
            given = next(
                (self.reasons[k] for k in ("head", "negatives", "reference") if k in clause and k in self.reasons), ""
            )
            return f"{clause}{f': {given}' if given else ''}"
        if needs.unit_sums and self.reference is not None and not self.reference.has("unit_feature_sum"):
            assert self.loaded_reference is not None
            try:
                self.loaded_reference.with_unit_sums()
            except UserError as error:
                return str(error)
        if needs.head and self.head is not None:
            reason = Head.of(self.head).reason
            if reason:
                return f"needs an affine head: {reason}"
            if (
                self.head.normalize_features
                and self.reference is not None
                and set(needs.fitted_on) & {"reference", "bank"}
            ):
                try:
                    assert self.loaded_reference is not None
                    self.loaded_reference.of_unit_length()
                except UserError as error:
                    return str(error)
        return ""


def patches_apart(inside: PredictionStore, outside: PredictionStore) -> str:
    """Return why scores of best patches of two stores cannot be compared; empty where they can."""
    if not_there := without_patches(outside):
        return f"{outside.dataset.id}: {not_there}"
    if inside.recorded("head_identity") != outside.recorded("head_identity"):
        used = (outside.recorded("prompt_set"), inside.recorded("prompt_set"))
        return f"the best patches of {outside.dataset.id} are for the prompts {used[0]!r}, not {used[1]!r}"
    return ""


def without_patches(store: PredictionStore, head: HeadStore | None = None) -> str:
    """Return why a store's best patches cannot be used with a head, empty where they can."""
    if "patches" not in store.parts:
        return "needs the best patch of each image: 'extract --arrays patches' stores it"
    own = store.recorded("head_identity")
    if head is not None and own and own not in (head.identity, *extended([head])):
        return (
            f"needs best patches for the prompts {head.prompt_set!r}: those of the store are for"
            f" {store.recorded('prompt_set')!r}"
        )
    return ""


def source_of(place: str, options: OodOptions) -> str | None:
    """Return the set that a detector is fitted on, and of validation rows the share."""
    if place != "validation" or options.validation is None:
        return options.reference
    name, share = options.validation
    return name if share == 1 else f"{name}:{share:g}"


def find_inputs(cache: Cache, model: str, options: OodOptions) -> ModelInputs:
    """Gather one model's stores.

    Raises
    ------
    CacheError, UserError
        Where there is no store of the in-distribution set.
    """
    found = ModelInputs(cache.store(model, options.id_dataset))

    def look(what: str, get_it: Any) -> Any:
        try:
            return get_it()
        except (CacheError, UserError) as error:
            found.reasons[what] = str(error)
            return None

    card = found.store.dataset
    found.head = look("head", lambda: cache.head(model, card.class_space, options.prompt_set))
    if options.reference:
        found.reference = look("reference", lambda: cache.reference(model, str(options.reference)))
    else:
        there = sorted({store.dataset.id for store in cache.stores("reference")})
        made = "the cache has none, 'extract --reference NAME' makes one"
        found.reasons["reference"] = f"'analyze ood --reference {' or '.join(there)}' takes it" if there else made
    if options.validation:
        found.validation = look(
            "validation", lambda: cache.store(model, options.validation[0] if options.validation else "")
        )
    if options.negatives:
        found.negatives = look("negatives", lambda: cache.head(model, options.negatives))
    else:
        found.reasons["negatives"] = "'analyze ood --negatives CLASS_SPACE' takes them"
    return found


def held_back(store: PredictionStore, share: float) -> NDArray[np.bool_]:
    """Mark a share of a store's rows by a hash of their image ids: the same images for every model.

    Raises
    ------
    UserError
        For a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"a validation share of {share:g} must lie in (0, 1]")
    if share == 1:
        return np.ones(len(store), np.bool_)
    digests = b"".join(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=b"validation").digest()
        for name in store.image_ids
    )
    return np.asarray(np.frombuffer(digests, dtype="<u8") < np.uint64(min(share * 2.0**64, 2.0**64 - 2048)))


def read_validation(store: PredictionStore, rows: NDArray[np.bool_]) -> Validation:
    """Read the valid ones of some rows: features and logits where they are stored, and labels."""
    chosen = rows & store.valid
    parts: dict[str, list[NDArray[Any]]] = {"features": [], "logits": []}
    for block in store.blocks(READ_ROWS, logits=store.has_logits, features=store.has_features):
        mask = chosen[block.start : block.stop]
        for name, values in (("features", block.features), ("logits", block.logits)):
            if values is not None:
                parts[name].append(values[mask])
    features, logits = (np.concatenate(v) if v else None for v in parts.values())
    return Validation(features, logits, store.labels[chosen], store.dataset.id)


def ood_sets(cache: Cache, model: str, options: OodOptions) -> dict[str, str]:
    """Return the OOD sets that a model has stores of, each with its distance (``near``, ``far`` or empty).

    A set that was named but that the model has no store of is left out.
    """
    present = {s.dataset.id: s.dataset for s in cache.stores("predictions") if s.model.id == model}
    if options.near or options.far:
        named = {**dict.fromkeys(options.near, "near"), **dict.fromkeys(options.far, "far")}
        return {name: distance for name, distance in named.items() if name in present and name != options.sweep}
    return {name: card.distance for name, card in present.items() if card.role == "ood" and name != options.sweep}


def spectrum_sets(cache: Cache, model: str, options: OodOptions) -> tuple[str, ...]:
    """Return the shifted sets that join the in-distribution set for full-spectrum numbers."""
    present = {s.dataset.id: s.dataset for s in cache.stores("predictions") if s.model.id == model}
    if options.full_spectrum is not None:
        missing = [name for name in options.full_spectrum if name not in present]
        if missing:
            raise UserError(f"{model} has no store of {', '.join(missing)}{nearest(missing[0], present)}")
        return options.full_spectrum
    return tuple(n for n, c in sorted(present.items()) if c.role == "shift" and c.shift_of == options.id_dataset)
