"""Proper scores against soft labels: several people's answers about one image, as a probability of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analyze.metrics import _checks
from analyze.metrics._rows import counted
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError

_BLOCK = 1 << 20
_SUM = 1e-3
"""How far from 1 the shares of an image may sum up to."""


def soft_negative_log_likelihood(
    logits: ArrayLike, targets: ArrayLike, *, excess: bool = False, weights: ArrayLike | None = None
) -> float:
    """Return the mean over images of -sum_c q_c log p_c in nats, q the soft label. Lower is better; in [0, inf].

    Its least possible value is the mean entropy of the labels: people's disagreement, which no model can avoid. With
    labels of one class it is :func:`analyze.metrics.negative_log_likelihood`.

    Parameters
    ----------
    logits
        (n, C) real numbers; log-probabilities give the same answer. -inf is a class of probability 0.
    targets
        (n, C) share of each class among the answers, in [0, 1]; a row sums to 1.
    excess
        Take the labels' entropy off: the mean Kullback-Leibler divergence from label to model, 0 at best.
    weights
        (n,) sample weights of at least 0, for example the number of answers; each image weighs the same when None.

    Raises
    ------
    UserError
        For NaN or +inf, shares outside [0, 1] or that do not sum to 1 (the row is named), no rows, other shapes.

    References
    ----------
    Peterson et al., "Human uncertainty makes classification more robust", ICCV 2019.

    Examples
    --------
    >>> round(soft_negative_log_likelihood([[0.0, 0.0]], [[0.75, 0.25]]), 6)
    0.693147
    """
    excess = _checks.switch("excess", excess)
    scores = _checks.logits(logits)
    shares = _shares(targets, scores.shape, "logits")
    total, mass = 0.0, _mass(len(scores), weights, "logits")
    for rows in _blocks(scores.shape):
        block = scores[rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
        q = shares[rows].astype(np.float64)
        held = q > 0
        terms = -np.where(held, q * np.where(held, block, 0.0), 0.0)
        if excess:
            terms += np.where(held, q * np.log(np.where(held, q, 1.0)), 0.0)
        each = terms.sum(axis=1)
        part = mass[rows]
        # An image of weight 0 does not count, not even with an infinite loss.
        total += float((part * np.where(part > 0, each, 0.0)).sum())
    # A divergence of 0 may be rounded below it.
    return max(total / float(mass.sum()), 0.0)


def soft_brier_score(
    probabilities: ArrayLike, targets: ArrayLike, *, excess: bool = True, weights: ArrayLike | None = None
) -> float:
    """Return the mean over images of sum_c (p_c - q_c)^2, q the soft label. Lower is better; in [0, 2].

    Parameters
    ----------
    probabilities
        (n, C) in [0, 1].
    targets, weights
        As for `soft_negative_log_likelihood`.
    excess
        False adds sum_c q_c (1 - q_c): the expected :func:`analyze.metrics.brier_score` of one answer drawn from the
        label, which no model can bring to 0 where people disagree.

    Raises
    ------
    UserError
        As for `soft_negative_log_likelihood`.

    References
    ----------
    Brier 1950; Peterson et al., ICCV 2019, for the labels.

    Examples
    --------
    >>> soft_brier_score([[0.5, 0.5]], [[0.75, 0.25]])
    0.125
    """
    excess = _checks.switch("excess", excess)
    scores = _checks.probabilities(probabilities)
    shares = _shares(targets, scores.shape, "probabilities")
    total, mass = 0.0, _mass(len(scores), weights, "probabilities")
    for rows in _blocks(scores.shape):
        p, q = scores[rows].astype(np.float64), shares[rows].astype(np.float64)
        each = ((p - q) ** 2).sum(axis=1)
        if not excess:
            each += (q * (1 - q)).sum(axis=1)
        total += float((mass[rows] * each).sum())
    return total / float(mass.sum())


def _shares(targets: ArrayLike, shape: tuple[int, ...], other: str) -> _checks.Floats:
    shares = _checks.probabilities(targets, "targets")
    _checks.same_length(other, shape[0], "targets", shares.shape[0])
    if shares.shape[1] != shape[1]:
        raise UserError(f"{other} has {shape[1]} classes and targets has {shares.shape[1]}")
    sums = shares.sum(axis=1, dtype=np.float64)
    wrong = np.abs(sums - 1) > _SUM
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"targets: row {row} sums to {sums[row]:.4g}, not 1; divide counts of answers by their sum")
    return shares


def _mass(n: int, weights: ArrayLike | None, other: str) -> _checks.Floats:
    keep, mass = counted(n, weights, other=other)
    if mass is None:
        return np.ones(n)
    if keep is None:
        return mass
    whole = np.zeros(n)
    whole[keep] = mass
    return whole


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _BLOCK // shape[1])
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


ROWS = (
    Metric(
        "soft_nll", "NLL of soft labels", "lower", high=INFINITY, columns=("logits", "targets"),
        function=soft_negative_log_likelihood,
        evidence=Evidence(
            "mean_i -sum_c q_ic log p_ic", "Peterson et al., ICCV 2019", "scipy's log_softmax, image by image",
        ),
    ),
    Metric(
        "soft_brier", "Brier score of soft labels", "lower", high=2.0, columns=("probabilities", "targets"),
        function=soft_brier_score,
        evidence=Evidence(
            "mean_i sum_c (p_ic - q_ic)^2", "Brier 1950; Peterson et al., ICCV 2019",
            "the definition, image by image",
        ),
    ),
)  # fmt: skip
