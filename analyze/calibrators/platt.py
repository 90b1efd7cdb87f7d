"""Platt scaling: a logistic curve of the confidence's log odds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.calibrators.confidence_maps import CLIP, checked_confidences, checked_fit_columns, least_logistic_loss
from analyze.metrics import _checks
from closerlook_common.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Platt:
    """Platt scaling: logit p = slope x logit c + intercept.

    Attributes
    ----------
    slope, intercept
        As fitted. A slope below 0 turns the order of confidences round: the model is surest where it is wrong.
    """

    slope: float
    intercept: float

    def apply(self, confidences: ArrayLike) -> Floats:
        """Return the calibrated probability of each confidence, (n,) in (0, 1)."""
        from scipy.special import expit

        calibrated: Floats = expit(self.slope * _log_odds(checked_confidences(confidences)) + self.intercept)
        return calibrated


def fit_platt(confidences: ArrayLike, correct: ArrayLike, *, smoothed: bool = True) -> Platt:
    """Fit Platt scaling by maximum likelihood.

    Parameters
    ----------
    confidences
        (n,) in [0, 1].
    correct
        (n,) whether the prediction was right.
    smoothed
        Aim at (r + 1) / (r + 2) for the r right rows and at 1 / (w + 2) for the w wrong ones, as Platt does, in place
        of 1 and 0: then there is always a finite best fit.

    Raises
    ------
    UserError
        For NaN or confidences outside [0, 1] (the row is named), no rows, lengths that differ; where all confidences
        are equal; and without smoothing where all rows are right, all wrong, or confidences separate the two.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines", 1999; of log odds Guo et al., ICML 2017.
    """
    c, right = checked_fit_columns(confidences, correct)
    odds = _log_odds(c)
    if odds.min() == odds.max():
        raise UserError("Platt scaling needs confidences that differ")
    targets = right.astype(np.float64)
    if _checks.switch("smoothed", smoothed):
        hits = int(np.count_nonzero(right))
        targets = np.where(right, (hits + 1) / (hits + 2), 1 / (right.size - hits + 2))
    elif right.all() or not right.any() or _parted(odds[right], odds[~right]):
        raise UserError("Platt scaling has no finite best fit: confidences separate right rows from wrong ones")
    found = least_logistic_loss(np.stack([odds, np.ones_like(odds)], axis=1), targets)
    if found is None:
        raise UserError("Platt scaling has no finite best fit that could be found")
    return Platt(float(found[0]), float(found[1]))


def _parted(of_right: Floats, of_wrong: Floats) -> bool:
    return bool(of_wrong.max() <= of_right.min() or of_right.max() <= of_wrong.min())


def _log_odds(confidences: Floats) -> Floats:
    c = np.clip(confidences, CLIP, 1.0 - CLIP)
    return np.asarray(np.log(c) - np.log1p(-c), np.float64)
