"""What ``analyze ood`` was asked for, and what a cache offers detectors of each model; and why some is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyze.detectors import DETECTORS
from analyze.fits.detector_inputs import ModelInputs, without_patches
from analyze.settings import Settings
from closerlook_common.errors import CacheError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore


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

    @property
    def settings(self) -> Settings:
        """What fits of detectors and their numbers read, by section: they declare which, and are given no other."""
        held, share = self.validation or ("", 1.0)
        return Settings(
            {
                "detectors": {"defaults": self.defaults},
                "reference": {"dataset": self.reference},
                "validation": {"dataset": held, "share": share},
                "negatives": {"class_space": self.negatives, "share": self.mined},
                "sweep": {"dataset": self.sweep},
                "ood": {"threshold": self.threshold, "aupr": self.aupr},
                "bootstrap": {"confidence_level": self.confidence_level},
            }
        )


def patches_apart(inside: PredictionStore, outside: PredictionStore) -> str:
    """Return why scores of best patches of two stores cannot be compared; empty where they can."""
    if not_there := without_patches(outside):
        return f"{outside.dataset.id}: {not_there}"
    if inside.recorded("head_identity") != outside.recorded("head_identity"):
        used = (outside.recorded("prompt_set"), inside.recorded("prompt_set"))
        return f"the best patches of {outside.dataset.id} are for the prompts {used[0]!r}, not {used[1]!r}"
    return ""


def find_inputs(cache: Cache, model: str, options: OodOptions) -> ModelInputs:
    """Gather one model's stores.

    Raises
    ------
    CacheError, UserError
        Where there is no store of the in-distribution set, or of the set of the sweep.
    """
    found = ModelInputs(cache.store(model, options.id_dataset))
    if options.sweep:
        found.sweep = cache.store(model, options.sweep)

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
        held = options.validation[0]
        found.validation = look("validation", lambda: cache.store(model, held))
    if options.negatives:
        found.negatives = look("negatives", lambda: cache.head(model, options.negatives))
    else:
        found.reasons["negatives"] = "'analyze ood --negatives CLASS_SPACE' takes them"
    return found


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
