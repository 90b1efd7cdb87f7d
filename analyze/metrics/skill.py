"""Skill: by how much a proper score is better than saying the share of each class for every image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._rows import counted, labels_and_ignored
from analyze.metrics.proper_scores import brier_score, negative_log_likelihood
from analyze.metrics.spec import INFINITY, PROBABILITY_ROWS, Evidence, Metric
from closerlook_common.errors import UserError


def d2_log_loss(
    logits: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None, ignore_index: int | None = None
) -> float:
    """Return 1 - NLL / NLL of the class shares of these labels (D2 of the log loss). Higher is better; in [-inf, 1].

    0 is as good as the shares, 1 is sure and right; also McFadden's pseudo R2.

    Parameters
    ----------
    logits, labels, weights, ignore_index
        As for :func:`analyze.metrics.negative_log_likelihood`. Shares are of weights where there are some.

    Raises
    ------
    UserError
        As there; where all labels are one class, whose share has no loss to compare with.

    References
    ----------
    McFadden, Conditional logit analysis of qualitative choice behavior, 1974; scikit-learn's ``d2_log_loss_score``.

    Examples
    --------
    >>> round(d2_log_loss([[2.0, 0.0], [0.0, 2.0]], [0, 1]), 6)
    0.816878
    """
    loss = negative_log_likelihood(logits, labels, weights=weights, ignore_index=ignore_index)
    return 1 - loss / null_loss(_shares(labels, weights, ignore_index), logarithmic=True)


def d2_brier(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None, ignore_index: int | None = None
) -> float:
    """Return 1 - Brier score / Brier score of the class shares of these labels. Higher is better; in [-inf, 1].

    0 is as good as the shares, 1 is sure and right; the Brier skill score.

    Parameters
    ----------
    probabilities, labels, weights, ignore_index
        As for :func:`analyze.metrics.brier_score`. Shares are of weights where there are some.

    Raises
    ------
    UserError
        As there; where all labels are one class, whose share has no score to compare with.

    References
    ----------
    Brier, Verification of forecasts expressed in terms of probability, 1950; scikit-learn's ``d2_brier_score``.
    """
    score = brier_score(probabilities, labels, weights=weights, ignore_index=ignore_index)
    return 1 - score / null_loss(_shares(labels, weights, ignore_index), logarithmic=False)


def null_loss(shares: NDArray[np.float64], *, logarithmic: bool) -> float:
    """Return the log loss, or the Brier score, of saying the share of each class for every image.

    Parameters
    ----------
    shares
        (k,) shares of the classes that occur.
    logarithmic
        Which of the two.

    Raises
    ------
    UserError
        Where there is one class only, whose loss is 0.
    """
    if shares.size == 1:
        raise UserError("every label is of one class: there is no score to compare with")
    return float(-(shares * np.log(shares)).sum()) if logarithmic else 1 - float((shares**2).sum())


def _shares(labels: ArrayLike, weights: ArrayLike | None, ignore_index: int | None) -> NDArray[np.float64]:
    """Return the share of each class that occurs; labels and weights are checked already."""
    given = _checks.whole_numbers("labels", labels)
    _, ignored = labels_and_ignored(given, ignore_index, int(given.max(initial=0)) + 1, given.size)
    keep, mass = counted(given.size, weights, ignored)
    kept = given if keep is None else given[keep]
    _, place = np.unique(kept, return_inverse=True)
    counts = np.bincount(place, mass)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


ROWS = (
    Metric(
        "d2_log_loss", "D2 of the log loss", "higher", low=-INFINITY, columns=("logits", "labels"),
        function=d2_log_loss,
        evidence=Evidence(
            "1 - NLL / NLL of the class shares", "McFadden 1974",
            "scipy's entropy; scikit-learn's d2_log_loss_score",
        ),
    ),
    Metric(
        "d2_brier", "D2 of the Brier score", "higher", low=-INFINITY, columns=PROBABILITY_ROWS, function=d2_brier,
        evidence=Evidence(
            "1 - Brier / Brier of the class shares", "Brier 1950",
            "the definition; scikit-learn's d2_brier_score where it has one",
        ),
    ),
)  # fmt: skip
