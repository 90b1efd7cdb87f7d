"""Every detector by name, what it needs, and the sets of default hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from analyze.detectors import (
    angles,
    clip_scores,
    conformance,
    feature_shaping,
    gradnorm,
    klm,
    likelihood,
    logit_scores,
    mahalanobis,
    neighbours,
    openmax,
    patch_scores,
    relation,
    subspace,
    weight_masking,
)
from analyze.detectors.base import Detector, Needs
from analyze.metrics._checks import number, switch, whole_number
from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import Plugin, attach

_FAMILIES = (
    logit_scores,
    klm,
    openmax,
    feature_shaping,
    weight_masking,
    gradnorm,
    angles,
    neighbours,
    relation,
    mahalanobis,
    subspace,
    likelihood,
    conformance,
    clip_scores,
    patch_scores,
)
_DETECTORS: dict[str, type[Detector]] = {kind.name: kind for family in _FAMILIES for kind in family.DETECTORS}

DETECTORS: Mapping[str, type[Detector]] = _DETECTORS
"""Name -> class; plug-ins join at the end."""

DEFAULT_SETS = ("openood", "paper")


def names() -> tuple[str, ...]:
    """Return the detectors' names."""
    return tuple(DETECTORS)


def get(name: str, *, defaults: str = "openood", **hyper_parameters: Any) -> Detector:
    """Return an unfitted detector.

    Parameters
    ----------
    name
        One of ``names()``.
    defaults
        Set of default hyper-parameters: ``openood`` or ``paper``.
    **hyper_parameters
        Those to change; a detector's own docstring lists them.

    Raises
    ------
    UserError
        For an unknown name or option (the nearest is named) and for a value out of range.

    Examples
    --------
    >>> get("knn", k=10).hyper_parameters["k"]
    10
    """
    kind = _kind(name)
    known = tuple(f.name for f in fields(kind))
    for option in hyper_parameters:
        if option not in known:
            listed = f"; its options are {', '.join(known)}" if known else "; it has none"
            raise UserError(f"{name} has no option {option!r}{nearest(option, known)}{listed}")
    if not isinstance(defaults, str) or defaults not in DEFAULT_SETS:
        near = nearest(str(defaults), DEFAULT_SETS)
        raise UserError(f"defaults {defaults!r}: choose {' or '.join(DEFAULT_SETS)}{near}")
    declared = {f.name: f.type for f in fields(kind)}
    given = {option: _of_type(option, value, declared[option]) for option, value in hyper_parameters.items()}
    values = (dict(kind.paper) if defaults == "paper" else {}) | given
    return kind(**values)


def _of_type(option: str, value: Any, declared: Any) -> Any:
    """Return the value of an option if it is of the declared type; its range is the detector's own matter."""
    names = declared.replace(" ", "") if isinstance(declared, str) else getattr(declared, "__name__", "")
    types = set(names.split("|"))
    if (value is None and "None" in types) or (isinstance(value, str) and "str" in types):
        return value
    if "bool" in types:
        return switch(option, value)
    if "float" in types:
        found: float = number(option, value)
    elif "int" in types:
        found = whole_number(option, value, least=0)
    elif types == {"str"}:
        raise UserError(f"{option} must be a word; got {value!r}")
    else:
        return value
    return value if isinstance(value, (int, float)) else found


def _kind(name: str) -> type[Detector]:
    if not isinstance(name, str) or name not in DETECTORS:
        raise UserError(f"no detector {name!r}{nearest(str(name), DETECTORS, list_all=True)}")
    return DETECTORS[name]


def _add(plugin: Plugin) -> None:
    """Take a detector from outside, a class whose fields all have defaults."""
    kind = plugin.item
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise UserError(f"{plugin.name!r} is not a class derived from Detector")
    if kind.name in _DETECTORS:
        raise UserError(f"the detector {kind.name!r} exists already; give yours another name")
    if not isinstance(getattr(kind, "needs", None), Needs):
        raise UserError(f"the detector {kind.name!r} has no needs = Needs(...)")
    try:
        kind()
    except TypeError as error:
        raise UserError(f"the detector {kind.name!r} cannot be made without arguments: {error}") from None
    _DETECTORS[kind.name] = kind


def requirements(name: str) -> Needs:
    """Return what a detector needs."""
    return _kind(name).needs


def defaults(which: str = "openood") -> dict[str, dict[str, Any]]:
    """Return detector -> hyper-parameters of a set.

    Parameters
    ----------
    which
        ``openood``: of OpenOOD 1.5's configuration files (of the peer that has it, for detectors that OpenOOD lacks).
        ``paper``: of the authors' code for ImageNet; where that states none, OpenOOD's. Each detector's docstring says
        where its own come from; one of them, ASH-P's 60, could not be verified.
    """
    return {name: get(name, defaults=which).hyper_parameters for name in DETECTORS}


def sweep(name: str) -> dict[str, tuple[Any, ...]]:
    """Return the hyper-parameter values that a search tries; empty where there is nothing to search."""
    return dict(_kind(name).sweep)


attach("detectors", _add)
