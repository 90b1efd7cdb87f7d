"""What ``analyze ood`` was asked for, held against the cache before any model is scored: names in, options out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from analyze.detectors import DETECTORS, get
from analyze.ood.inputs import OodOptions
from cache_schema.writing.dataset_roles import require_roles
from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from analyze.settings import Settings
    from cache_schema.reading.cache import Cache


def in_distribution_set(cache: Cache) -> str:
    """Return the only set of role ``id``.

    Raises
    ------
    UserError
        Where there is none, or more than one, or the role of a dataset is not clear.
    """
    sets = sorted(name for name, facts in require_roles(cache).items() if facts.role == "id")
    if len(sets) != 1:
        raise UserError(f"name the in-distribution set with `id`: {' or '.join(sets or ['NAME'])}")
    return sets[0]


def reference_set(cache: Cache, named: str | None) -> str | None:
    """Return the training set whose reference stores to fit on: the one that was named, or the only one there is.

    ``none`` stands for none.

    Raises
    ------
    UserError
        Where the set that was named has no reference store.
    """
    present = _sets(cache, "reference")
    if named == "none":
        return None
    if named is None:
        return present[0] if len(present) == 1 else None
    if named not in present:
        known = [card.id for card in cache.datasets()]
        what = "no reference stores of" if named in known else "no dataset"
        listed = f"; there are some of {', '.join(present)}" if present else "; 'extract --reference NAME' writes them"
        raise UserError(f"`reference`: {what} {named!r} in this cache{nearest(named, present)}{listed}")
    return named


def _sets(cache: Cache, kind: str) -> list[str]:
    return list(dict.fromkeys(store.dataset.id for store in cache.stores(kind)))


def options_of(
    cache: Cache,
    settings: Settings,
    *,
    id: str | None = None,
    reference: str | None = None,
    detectors: Sequence[str] | None = None,
    near: Sequence[str] = (),
    far: Sequence[str] = (),
    full_spectrum: Sequence[str] | None = None,
    validation: str = "",
    sweep: str = "",
    defaults: str = "openood",
    prompts: str | None = None,
    negatives: str = "",
    models: Sequence[str] | None = None,
    explicit: bool | None = None,
) -> OodOptions:
    """Return checked options from what a command line or a call gives.

    Parameters
    ----------
    cache
        An open cache.
    settings
        Of which ``[ood]`` and the confidence level of ``[bootstrap]`` count.
    detectors
        Names; all when None.
    validation
        ``NAME`` or ``NAME:SHARE``; empty for none.
    negatives
        ``SPACE`` or ``SPACE:SHARE``, of whose words the share furthest from the classes is taken; empty for none.
    explicit
        See `checked`; whether detectors were named when None.
    id, reference, near, far, full_spectrum, sweep, defaults, prompts, models
        As ``OodOptions`` has them; ``id`` None takes the only in-distribution set.
    """
    of_ood = settings["ood"]
    if of_ood["class_masks"]:
        raise UserError(
            "[ood] class_masks = true: detectors score all classes of the head; only 'analyze metrics' takes subsets"
        )
    held: tuple[str, float] | None = None
    if validation:
        name, colon, share = validation.rpartition(":")
        try:
            held = (name, float(share)) if colon else (share, 1.0)
        except ValueError:
            raise UserError(f"`validation` {validation}: the share after the colon must be a number") from None
    space, mined = _mined(negatives)
    names = tuple(DETECTORS) if detectors is None else tuple(detectors)
    for detector in names:
        get(detector, defaults=defaults)
    options = OodOptions(
        id_dataset=id or in_distribution_set(cache),
        reference=reference,
        detectors=names,
        near=tuple(near),
        far=tuple(far),
        full_spectrum=None if full_spectrum is None else tuple(full_spectrum),
        validation=held,
        sweep=sweep,
        defaults=defaults,
        prompt_set=prompts,
        negatives=space,
        mined=mined,
        models=tuple(models) if models else None,
        threshold=of_ood["threshold"],
        aupr=of_ood["aupr"],
        confidence_level=settings["bootstrap"]["confidence_level"],
    )
    return checked(cache, options, explicit=detectors is not None if explicit is None else explicit)


def _mined(negatives: str) -> tuple[str, float]:
    """Return the class space and the share of ``SPACE`` or ``SPACE:SHARE``."""
    space, colon, text = negatives.rpartition(":")
    try:
        share = float(text)
    except ValueError:
        return negatives, 1.0
    if not colon:
        return negatives, 1.0
    if not 0 < share <= 1:
        raise UserError(f"`negatives` {negatives}: the share {text} must lie in (0, 1]")
    return space, share


def checked(cache: Cache, options: OodOptions, *, explicit: bool) -> OodOptions:
    """Return the options, the reference settled.

    Parameters
    ----------
    cache
        An open cache.
    options
        As they were given.
    explicit
        Whether detectors were named, rather than all asked for: then each must be possible at all.

    Raises
    ------
    UserError
        For a name that the cache does not have, a set in two roles, a share outside (0, 1], and a detector that was
        named but cannot be fitted on any model.
    """
    require_roles(cache)
    options = replace(options, reference=reference_set(cache, options.reference))
    predicted = _sets(cache, "predictions")
    validation = options.validation[0] if options.validation else ""
    named = (
        ("id", (options.id_dataset,)),
        ("near", options.near),
        ("far", options.far),
        ("full_spectrum", options.full_spectrum or ()),
        ("validation", (validation,)),
        ("sweep", (options.sweep,)),
    )
    for option, names in named:
        for name in filter(None, names):
            if name not in predicted:
                raise UserError(f"`{option}`: no predictions on {name!r} in this cache{nearest(name, predicted)}")
            if name == options.id_dataset and option in ("near", "far", "full_spectrum", "sweep"):
                raise UserError(f"`{option}`: {name} is the in-distribution set")
            if name == validation and option in ("near", "far", "sweep"):
                raise UserError(f"`{option}`: {name} is the set to fit on (`validation`)")
    both = sorted(set(options.near) & set(options.far))
    if both:
        raise UserError(f"`near` and `far`: {both[0]} is in both")
    _check_validation(options)
    if not options.detectors:
        raise UserError("`detectors`: name at least one, or 'all'")
    _check_heads(cache, options)
    if explicit:
        _check_fits(cache, options)
    return options


def _check_validation(options: OodOptions) -> None:
    if options.sweep and options.validation is None:
        raise UserError("`sweep` needs in-distribution rows to compare with: give `validation` NAME or NAME:SHARE")
    if options.validation is None:
        return
    name, share = options.validation
    if not 0 < share <= 1:
        raise UserError(f"`validation` {name}:{share:g}: the share must lie in (0, 1]")
    if name == options.id_dataset and share == 1:
        raise UserError(
            f"all rows of {name} for fitting leaves none to evaluate: give a share, `validation` {name}:0.1"
        )


def require_ood_sets(cache: Cache, options: OodOptions) -> None:
    """Raise UserError, with what decides, where no set is out-of-distribution and none was named."""
    if options.near or options.far or options.sweep:
        return
    roles = {name: facts.role for name, facts in require_roles(cache).items()}
    if "ood" not in roles.values():
        others = sorted(set(roles) - {options.id_dataset}) or ["NAME"]
        raise UserError(
            f"{cache.title} has no out-of-distribution set: name some with `near` or `far`, or set the role of one:"
            f" 'python -m cache_schema dataset {cache.title} {others[0]} --role ood'"
        )


def _check_heads(cache: Cache, options: OodOptions) -> None:
    if not (options.prompt_set or options.negatives):
        return
    heads = [head for card in cache.models() for head in cache.heads(card.id)]
    _among("`prompts`: no head with prompt set", options.prompt_set, (head.prompt_set for head in heads))
    _among("`negatives`: no head of class space", options.negatives, (head.class_space for head in heads))


def _among(problem: str, name: str | None, names: Iterable[str]) -> None:
    known = list(dict.fromkeys(filter(None, names)))
    if name and name not in known:
        raise UserError(
            f"{problem} {name!r} in this cache{nearest(name, known)}; there are {', '.join(known) or 'none'}"
        )


def _check_fits(cache: Cache, options: OodOptions) -> None:
    for name in options.detectors:
        clause = get(name, defaults=options.defaults).missing(
            reference=options.reference is not None,
            bank=options.reference is not None,
            head=True,
            validation=options.validation is not None,
            negatives=bool(options.negatives),
        )
        if clause:
            needed = "`negatives` (a class space)" if "negative" in clause else "`reference` (a training set)"
            needed += " or `validation` (NAME:SHARE)" if "validation" in clause else ""
            present = ", ".join(_sets(cache, "reference")) or "none"
            raise UserError(f"{name} {clause}: give {needed} (reference stores in this cache: {present})")
