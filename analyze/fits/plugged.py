"""Calibrators of the confidence from outside the package: a function that fits, and what it returns, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.fits.confidence_maps import ConfidenceMapFit
from closerlook_common.errors import CloserlookError, UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibrator:
    """A calibrator of the confidence.

    Attributes
    ----------
    name
        In ``[calibrators] methods``, and in the column ``calibrator`` of the result table.
    fit
        Confidences (n,) in [0, 1] of the rows that are fitted on, and whether each was right (n,) -> a function of
        confidences (m,) that returns probabilities of being right, (m,) in [0, 1].
    """

    name: str
    fit: Callable[[Any, Any], Callable[[Any], Any]]


@dataclass(frozen=True, eq=False)
class CheckedMap:
    """What a calibrator's ``fit`` returned."""

    name: str
    function: Callable[[Any], Any]

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return calibrated confidences, (n,).

        Raises
        ------
        UserError
            The function fails, or gives another number of values or one outside [0, 1].
        """
        given = np.array(confidences, np.float64)
        try:
            found = np.asarray(self.function(given.copy()), np.float64)
        except CloserlookError:
            raise
        except Exception as error:  # whatever the plug-in's function raises
            raise UserError(f"{self.name} fails ({_stated(error)})") from error
        if found.shape != given.shape:
            raise UserError(f"{self.name} gives an array of shape {found.shape} for {given.size} confidences")
        if not ((found >= 0) & (found <= 1)).all():
            raise UserError(f"{self.name} gives probabilities outside [0, 1]")
        return found


def fit_from(calibrator: Calibrator) -> ConfidenceMapFit:
    """Return a plug-in's calibrator as a fit."""

    def fitter(confidences: Floats, correct: NDArray[np.bool_], _: Any) -> CheckedMap:
        try:
            function = calibrator.fit(confidences.copy(), correct.copy())
        except CloserlookError:
            raise
        except Exception as error:  # whatever the plug-in's function raises
            raise UserError(f"{calibrator.name} cannot be fitted ({_stated(error)})") from error
        if not callable(function):
            raise UserError(f"{calibrator.name} returns {type(function).__name__}, not a function of confidences")
        return CheckedMap(calibrator.name, function)

    return ConfidenceMapFit(calibrator.name, fitter)


def _stated(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
