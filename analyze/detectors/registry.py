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
    subspace,
    weight_masking,
)
from analyze.detectors.base import Detector, Needs
from cache_schema.errors import UserError, nearest

_FAMILIES = (
    logit_scores,
    klm,
    openmax,
    feature_shaping,
    weight_masking,
    gradnorm,
    angles,
    neighbours,
    mahalanobis,
    subspace,
    likelihood,
    conformance,
    clip_scores,
)
DETECTORS: Mapping[str, type[Detector]] = {kind.name: kind for family in _FAMILIES for kind in family.DETECTORS}
"""Name -> class."""

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
    if defaults not in DEFAULT_SETS:
        raise UserError(f"defaults {defaults!r}: choose {' or '.join(DEFAULT_SETS)}{nearest(defaults, DEFAULT_SETS)}")
    values = (dict(kind.paper) if defaults == "paper" else {}) | hyper_parameters
    return kind(**values)


def _kind(name: str) -> type[Detector]:
    if name not in DETECTORS:
        raise UserError(f"no detector {name!r}{nearest(name, DETECTORS, told=True)}")
    return DETECTORS[name]


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
