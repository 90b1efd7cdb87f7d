"""Which strength of the penalty: CLIP's search over a grid, or every one of a list, by accuracy on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from analyze.probes.banks import Bank
from analyze.probes.logistic import LinearProbe, Problem
from closerlook_common.errors import UserError

STEPS = 8
"""Steps a decade of CLIP's grid: 96 from 1e-6 to 1e6."""

LOW, HIGH, FIRST_STEP = -6, 6, 16


class Tried(NamedTuple):
    """A strength, and how the fit did on the held-out rows: accuracy and mean cross-entropy."""

    l2: float
    accuracy: float
    loss: float


def clip_search(score: Callable[[float], Tried]) -> list[Tried]:
    """Search a peak as CLIP does, and return all that was tried.

    Begins with 1e-6, 1e-4, ..., 1e6 and halves the step around the best one until it is an eighth of a decade.
    Equal accuracies: the smaller loss, then the stronger penalty.

    References
    ----------
    Radford et al. 2021, A.3, the "parametric binary search" of the hyper-parameter sweep.
    """
    known: dict[int, Tried] = {}

    def look(place: int) -> None:
        if LOW * STEPS <= place <= HIGH * STEPS and place not in known:
            known[place] = score(10.0 ** (place / STEPS))

    step = FIRST_STEP
    for place in range(HIGH * STEPS, LOW * STEPS - 1, -step):  # strong penalties first: they are fitted fastest
        look(place)
    while step > 1:
        step //= 2
        peak = max(known, key=lambda place: rank(known[place]))
        look(peak + step)
        look(peak - step)
    return [known[place] for place in sorted(known)]


def rank(tried: Tried) -> tuple[float, float, float]:
    """Return what the best strength is the largest of."""
    return tried.accuracy, -tried.loss, tried.l2


def choose_l2(train: Bank, held_out: Bank, path: Sequence[float] | None) -> tuple[float, list[Tried]]:
    """Choose the strength of the penalty by accuracy on held-out rows.

    Parameters
    ----------
    train, held_out
        Rows to fit on and rows to compare on.
    path
        Strengths to try; None for CLIP's search.

    Returns
    -------
    float
        The best strength.
    list of Tried
        Every one that was tried, from weak to strong.
    """
    if not len(held_out):
        raise UserError("no rows are left to choose the penalty on: every class has one row; name one strength")
    problem = Problem(train)
    fits: dict[float, LinearProbe] = {}

    def score(l2: float) -> Tried:
        near = min(fits, key=lambda other: abs(np.log(other / l2)), default=None)
        fits[l2] = problem.fit(l2, None if near is None else fits[near])
        return Tried(l2, *accuracy_and_loss(fits[l2], held_out))

    tried = clip_search(score) if path is None else [score(l2) for l2 in sorted(set(path), reverse=True)]
    tried.sort()
    return max(tried, key=rank).l2, tried


def accuracy_and_loss(probe: LinearProbe, bank: Bank) -> tuple[float, float]:
    """Return top-1 accuracy and mean cross-entropy of a probe on labelled rows."""
    right, loss = 0, 0.0
    for features, labels in bank.blocks():
        logits = probe.logits(features)
        right += int((logits.argmax(axis=1) == labels).sum())
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[np.arange(len(labels)), labels]
        loss += float((np.log(np.exp(logits).sum(axis=1)) - own).sum())
    return right / len(bank), loss / len(bank)
