"""How much the members of an ensemble differ: mutual information, ambiguity and disagreement."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class EnsembleDiversity:
    """How much the members differ on each image; every number is 0 where all say the same.

    Attributes
    ----------
    mutual_information
        (n,) entropy of the mean probabilities less the mean entropy of the members', in nats, in [0, log of the number
        of members]: what is not known about the model, where the mean entropy is what is not known about the image.
    ambiguity
        (n,) sum over classes of the variance over members, in [0, 1]. Its mean is what averaging takes off the Brier
        score: mean over members of their Brier scores less the ensemble's.
    disagreement
        (n,) share of pairs of members that predict different classes, in [0, 1].
    members
        How many.
    """

    mutual_information: NDArray[np.float64]
    ambiguity: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    members: int


class DiversityTotals:
    """Running totals over members of an ensemble: one member's probabilities in memory at a time.

    Parameters
    ----------
    shape
        (n, C) of every member.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._mean = np.zeros(shape)
        self._squares, self._entropy = np.zeros(shape[0]), np.zeros(shape[0])
        self._votes: list[NDArray[np.int64]] = []

    def add(self, probabilities: NDArray[np.floating]) -> None:
        """Add a member's probabilities, (n, C)."""
        wide = probabilities.astype(np.float64)
        self._mean += wide
        self._squares += np.einsum("nc,nc->n", wide, wide)
        self._entropy += _entropy(wide)
        self._votes.append(wide.argmax(axis=1).astype(np.int64))

    def result(self) -> EnsembleDiversity:
        """Return the numbers of the members added so far, at least two."""
        members = len(self._votes)
        if members < 2:
            raise UserError(f"diversity needs two members or more; got {members}")
        mean = self._mean / members
        information = _entropy(mean) - self._entropy / members
        ambiguity = self._squares / members - np.einsum("nc,nc->n", mean, mean)
        votes = np.sort(np.stack(self._votes), axis=0)
        # Of sorted votes a run of equal ones of length r has r (r - 1) / 2 equal pairs: 0 + 1 + ... + (r - 1).
        run, equal = np.zeros(votes.shape[1]), np.zeros(votes.shape[1])
        for before, after in itertools.pairwise(votes):
            run = np.where(before == after, run + 1, 0.0)
            equal += run
        pairs = members * (members - 1) / 2
        # Rounding may leave -1e-17 where all members say the same.
        return EnsembleDiversity(np.maximum(information, 0.0), np.maximum(ambiguity, 0.0), 1 - equal / pairs, members)


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    held = probabilities > 0
    terms = probabilities * np.log(np.where(held, probabilities, 1.0))
    return -np.asarray(terms.sum(axis=1), np.float64)


def ensemble_diversity(members: Iterable[ArrayLike]) -> EnsembleDiversity:
    """Return mutual information, ambiguity and disagreement of each image.

    Parameters
    ----------
    members
        Probabilities (n, C) of two models or more on the same images; an iterator keeps one in memory at a time.

    Raises
    ------
    UserError
        For fewer than two members, shapes that differ, or numbers that are not probabilities (the row is named).

    References
    ----------
    Depeweg et al., "Decomposition of uncertainty in Bayesian deep learning", ICML 2018 (mutual information); Krogh and
    Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 1994 (ambiguity); Kuncheva and
    Whitaker, Machine Learning 51, 2003 (disagreement).

    Examples
    --------
    >>> found = ensemble_diversity([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> [round(float(x[0]), 6) for x in (found.mutual_information, found.ambiguity, found.disagreement)]
    [0.693147, 0.5, 1.0]
    """
    totals: DiversityTotals | None = None
    shape: tuple[int, ...] = ()
    for place, member in enumerate(members):
        scores = _checks.probabilities(member, f"member {place}")
        if totals is None:
            shape = scores.shape
            totals = DiversityTotals((shape[0], shape[1]))
        if scores.shape != shape:
            raise UserError(f"member {place} has shape {scores.shape}, the first {shape}")
        totals.add(scores)
    if totals is None:
        raise UserError("diversity needs two members or more; got 0")
    return totals.result()


ROWS = (
    Metric(
        "ensemble_mutual_information", "Mutual information of the ensemble", "none", high=INFINITY,
        evidence=Evidence(
            "mean_i (H(mean_m p_mi) - mean_m H(p_mi)), in nats", "Depeweg et al., ICML 2018", "scipy's entropy",
            "test_metrics_more.py::test_diversity_by_definition",
        ),
    ),
    Metric(
        "ensemble_ambiguity", "Ambiguity of the ensemble", "none",
        evidence=Evidence(
            "mean over images and members of sum_c (p_mic - mean_m p_mic)^2", "Krogh and Vedelsby, NIPS 1994",
            "the Brier score of members less that of their mean",
            "test_metrics_more.py::test_diversity_by_definition",
        ),
    ),
    Metric(
        "ensemble_disagreement", "Pairs of members that disagree", "none", "fraction",
        evidence=Evidence(
            "share of pairs of members with other predictions", "Kuncheva and Whitaker, Machine Learning 51, 2003",
            "all pairs of members", "test_metrics_more.py::test_diversity_by_definition",
        ),
    ),
)  # fmt: skip
