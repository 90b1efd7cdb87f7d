"""Every fit by name, and which settings each per-image statistic depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from analyze.fits.base import Fit
from analyze.fits.confidence_maps import map_fits
from analyze.fits.conformal import ConformalSets
from analyze.fits.conformal_classes import ClassSets, ClusteredSets
from analyze.fits.kl_matching import KLMatchingFit
from analyze.fits.matrix import DirichletCalibration, MatrixScaling
from analyze.fits.plugged import Calibrator, fit_from
from analyze.fits.temperature import TemperatureScaling
from analyze.fits.top_label import TopLabelFit
from analyze.fits.vector import VectorScaling
from closerlook_common.errors import UserError
from closerlook_common.plugins import Plugin, attach

_FITS: dict[str, Fit] = {}

FITS: Mapping[str, Fit] = _FITS
"""Name -> fit, in the order in which they are fitted."""


def register(fit: Fit) -> Fit:
    """Add a fit.

    Raises
    ------
    UserError
        Another fit has its name, or gives a column of the same name.
    """
    if fit.name in _FITS:
        raise UserError(f"two fits are called {fit.name!r}")
    for other in _FITS.values():
        for column in fit.gives:
            if any(column.startswith(own) if own.endswith("_") else column == own for own in other.gives):
                raise UserError(f"the fits {other.name!r} and {fit.name!r} both give the column {column!r}")
    _FITS[fit.name] = fit
    return fit


for _fit in (
    TemperatureScaling(),
    ConformalSets(),
    ClassSets(),
    ClusteredSets(),
    VectorScaling(),
    MatrixScaling(),
    DirichletCalibration(),
    KLMatchingFit(),
    *map_fits(),
    TopLabelFit(),
):
    register(_fit)


def fit_of(column: str) -> Fit | None:
    """Return the fit that a per-image column comes from; None for a column that needs no fit."""
    for fit in _FITS.values():
        if any(column.startswith(own) if own.endswith("_") else column == own for own in fit.gives):
            return fit
    return None


def calibrators() -> tuple[str, ...]:
    """Return the names of the fits that ``[calibrators] methods`` can ask for."""
    return tuple(name for name, fit in _FITS.items() if fit.calibrates)


def sections_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the sections of the settings that some fits read, each once."""
    return tuple(dict.fromkeys(section for name in names for section in _FITS[name].sections))


def _add(plugin: Plugin) -> None:
    """Take a calibrator from outside."""
    calibrator = plugin.item
    if not isinstance(calibrator, Calibrator):
        raise UserError(f"{plugin.name!r} is not a Calibrator")
    if calibrator.name in _FITS or not re.fullmatch(r"[a-z][a-z0-9-]*", calibrator.name):
        raise UserError(
            f"the calibrator {calibrator.name!r} exists already, or its name is not of small letters, digits and -;"
            " give yours another name"
        )
    if not callable(calibrator.fit):
        raise UserError(f"the calibrator {calibrator.name!r} has no function that fits it")
    register(fit_from(calibrator))


attach("calibrators", _add)
