"""How alike two models are: error consistency, agreement of predictions, and ensembles of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.proportions import Interval
from analyze.metrics.spec import Evidence, Metric
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

LEAST_ERRORS = 5
"""Images that each case of right and wrong must have for an interval of the error consistency."""


def error_consistency(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Return Cohen's kappa of right and wrong: do two models err on the same images, beyond chance.

    kappa = (observed - expected) / (1 - expected), where observed is the share of images on which both are
    right or both wrong, and expected = a b + (1 - a)(1 - b) for accuracies a and b.

    Parameters
    ----------
    correct_a, correct_b
        (n,) whether each was right, on the same images in the same order.

    Returns
    -------
    float
        In [-1, 1]: 1 the same errors, 0 no more alike than chance, below 0 less. Two identical columns give
        1, also where both are right (or wrong) everywhere and kappa would be 0/0. No direction is better.

    Raises
    ------
    UserError
        For entries other than right and wrong (the row is named), no rows, lengths that differ.

    References
    ----------
    Geirhos, Meding and Wichmann, "Beyond accuracy", NeurIPS 2020; code bethgelab/model-vs-human.

    Examples
    --------
    >>> error_consistency([1, 1, 0, 0], [1, 0, 0, 0])
    0.5
    """
    a = _checks.correct(correct_a, name="correct_a")
    b = _checks.correct(correct_b, a.size, name="correct_b", other="correct_a")
    n = a.size
    right_a, right_b = int(np.count_nonzero(a)), int(np.count_nonzero(b))
    same = int(np.count_nonzero(a == b))
    if same == n:
        return 1.0
    by_chance = right_a * right_b + (n - right_a) * (n - right_b)  # times n^2, in whole numbers
    return (same * n - by_chance) / (n * n - by_chance)


def error_consistency_interval(correct_a: ArrayLike, correct_b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return an interval of :func:`error_consistency`: the delta method on the four counts of right and wrong.

    Parameters
    ----------
    correct_a, correct_b
        As for :func:`error_consistency`.
    level
        Nominal coverage.

    Raises
    ------
    UserError
        As for :func:`error_consistency`; where fewer than `LEAST_ERRORS` images are in the rarest of "both right",
        "both wrong" and "one right", so that kappa is not near normal.

    References
    ----------
    Fleiss, Cohen and Everitt, Large sample standard errors of kappa and weighted kappa, Psychological Bulletin 72,
    1969.
    """
    from scipy.special import ndtri

    level = _checks.fraction("level", level, open_ends=True)
    kappa = error_consistency(correct_a, correct_b)
    a = _checks.correct(correct_a, name="correct_a")
    b = _checks.correct(correct_b, a.size, name="correct_b", other="correct_a")
    n = a.size
    cells = np.array([[np.count_nonzero(~a & ~b), np.count_nonzero(~a & b)], [np.count_nonzero(a & ~b), (a & b).sum()]])
    rarest = min(int(cells[0, 0]), int(cells[1, 1]), int(cells[0, 1] + cells[1, 0]))
    if rarest < LEAST_ERRORS:
        raise UserError(
            f"no interval: {counted(rarest, 'image')} in the rarest case, at least {LEAST_ERRORS} are needed"
        )
    shares = cells / n
    of_a, of_b = shares.sum(axis=1), shares.sum(axis=0)
    chance = float(of_a @ of_b)
    # The derivative of kappa by the share of each cell.
    agreed = np.eye(2) / (1 - chance)
    moved = (1 - kappa) / (1 - chance) * (of_b[:, None] + of_a[None, :])
    slope = agreed - moved
    mean = float((shares * slope).sum())
    error = math.sqrt(float((shares * (slope - mean) ** 2).sum()) / n)
    reach = float(ndtri(0.5 + level / 2)) * error
    return Interval(max(-1.0, kappa - reach), min(1.0, kappa + reach), level, "delta")


def error_consistency_matrix(correct: ArrayLike) -> NDArray[np.float64]:
    """Return :func:`error_consistency` of every pair, from a (models, n) array of right and wrong."""
    right = _checks.correct_matrix("correct", correct).astype(np.float32)
    n = right.shape[1]
    if n >= 1 << 24:
        raise UserError("more than 16,777,215 images: compare models pair by pair")
    both = (right @ right.T).astype(np.float64)  # whole numbers below 2^24: exact in float32
    count = right.sum(axis=1, dtype=np.float64)
    same = n - count[:, None] - count[None, :] + 2 * both
    chance = count[:, None] * count[None, :] + (n - count[:, None]) * (n - count[None, :])
    room = n * n - chance
    return np.where(same == n, 1.0, (same * n - chance) / np.where(same == n, 1.0, room))


def prediction_agreement(predictions_a: ArrayLike, predictions_b: ArrayLike) -> float:
    """Return the share of images on which two models predict the same class; in [0, 1]."""
    a = _checks.whole_numbers("predictions_a", predictions_a)
    b = _checks.whole_numbers("predictions_b", predictions_b)
    _checks.same_length("predictions_a", a.size, "predictions_b", b.size)
    return float((a == b).mean())


def agreement_matrix(predictions: ArrayLike) -> NDArray[np.float64]:
    """Return the share of images on which each pair of models predicts the same class.

    Parameters
    ----------
    predictions
        (models, n) class numbers, on the same images in the same order.

    Returns
    -------
    ndarray of shape (models, models)
        Symmetric, ones on the diagonal.
    """
    table = _checks.whole_numbers("predictions", predictions, 2)
    answer = np.ones((table.shape[0], table.shape[0]))
    for i in range(table.shape[0] - 1):
        answer[i, i + 1 :] = answer[i + 1 :, i] = (table[i + 1 :] == table[i]).mean(axis=1)
    return answer


def ensemble_probabilities(
    members: Iterable[ArrayLike], *, weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Return the mean of the members' probabilities, (n, C) float64.

    Parameters
    ----------
    members
        Probabilities (n, C) of each model on the same images; an iterator keeps one in memory at a time.
    weights
        One weight a member, at least zero; equal when None.

    Raises
    ------
    UserError
        For no members, shapes or a number of weights that differ, or numbers that are not probabilities.
    """
    total: NDArray[np.float64] | None = None
    given, used, mass = None if weights is None else list(weights), 0, 0.0
    for place, member in enumerate(members):
        scores = _checks.probabilities(member, f"member {place}")
        if total is None:
            total = np.zeros(scores.shape)
        if scores.shape != total.shape:
            raise UserError(f"member {place} has shape {scores.shape}, the first {total.shape}")
        if given is not None and (place >= len(given) or not given[place] >= 0):
            raise UserError(f"member {place} needs a weight of at least zero; weights are {given}")
        weight = 1.0 if given is None else given[place]
        total += weight * scores
        mass += weight
        used += 1
    if total is None or mass == 0 or (given is not None and used != len(given)):
        raise UserError(f"an ensemble needs members and a weight each, not all zero; got {used}, {given}")
    total /= mass
    return total


ROWS = (
    Metric(
        "error_consistency", "Error consistency", "none", low=-1.0, columns=("correct_a", "correct_b"),
        function=error_consistency,
        evidence=Evidence(
            "(o - e) / (1 - e), o the share of equal correctness, e = ab + (1 - a)(1 - b)",
            "Geirhos, Meding and Wichmann, NeurIPS 2020", "scikit-learn's cohen_kappa_score",
        ),
    ),
)  # fmt: skip
