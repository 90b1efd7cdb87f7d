"""Conformal prediction: sets of classes that hold the label with a probability fixed beforehand.

The promise, coverage of at least 1 - alpha, is for images like those fitted on; coverage under shift shows
what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError

Method = Literal["lac", "aps", "raps", "saps"]
METHODS = ("lac", "aps", "raps", "saps")

_BLOCK = 1 << 20
_SUM_ROUNDING = 1e-5
"""How far from 1 the sum of a float32 softmax may be."""


@dataclass(frozen=True, kw_only=True)
class ConformalSets:
    """A fitted conformal predictor; make one with :func:`fit_conformal`.

    Attributes
    ----------
    method, alpha, penalty, free_ranks, weight
        As fitted.
    quantile
        Largest score that is let in; inf where there were too few images, and then every class is let in.
    n
        Images it was fitted on.
    """

    method: Method
    alpha: float
    penalty: float
    free_ranks: int
    quantile: float
    n: int
    weight: float = 0.02

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return the prediction sets, (n, C) booleans."""
        scores = _rows(probabilities)
        answer = np.empty(scores.shape, np.bool_)
        for rows in _row_blocks(scores.shape):
            answer[rows] = self.block_scores(scores[rows]) <= self.quantile
        return answer

    def coverage(self, probabilities: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of images whose set holds the label; at least 1 - alpha is promised."""
        inside = self.label_scores(probabilities, labels) <= self.quantile
        return int(np.count_nonzero(inside)) / inside.size

    def mean_size(self, probabilities: ArrayLike) -> float:
        """Return the mean number of classes in a set. Lower is better, at equal coverage."""
        scores = _rows(probabilities)
        blocks = _row_blocks(scores.shape)
        total = sum(int(np.count_nonzero(self.block_scores(scores[rows]) <= self.quantile)) for rows in blocks)
        return total / int(scores.shape[0])

    def label_scores(self, probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """Return the score of each image's label, (n,): the lower, the sooner it enters the set."""
        scores = _rows(probabilities)
        classes = _checks.labels(labels, scores.shape[1], scores.shape[0])
        own = np.empty(scores.shape[0])
        for rows in _row_blocks(scores.shape):
            own[rows] = np.take_along_axis(self.block_scores(scores[rows]), classes[rows, None], axis=1)[:, 0]
        return own

    def class_scores(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Return the score of every class, (n, C): the lower, the sooner it enters the set."""
        scores = _rows(probabilities)
        found = np.empty(scores.shape)
        for rows in _row_blocks(scores.shape):
            found[rows] = self.block_scores(scores[rows])
        return found

    def block_scores(self, block: _checks.Floats) -> NDArray[np.float64]:
        """Return the scores of checked probabilities, (b, C)."""
        probability = block.astype(np.float64)
        if self.method == "lac":
            return 1 - probability
        order = np.argsort(-probability, axis=1, kind="stable")
        ordered = np.take_along_axis(probability, order, axis=1)
        mass = np.cumsum(ordered, axis=1)
        # Where only rounding keeps a row's sum from 1, all classes together have a mass of exactly 1.
        total = mass[:, -1:]
        mass /= np.where(np.abs(total - 1) <= _SUM_ROUNDING, total, 1.0)
        ranks = np.broadcast_to(np.arange(1, block.shape[1] + 1), mass.shape).copy()
        # Equal probabilities enter together: the last of them speaks for all, whatever the order of classes.
        tied = ordered[:, :-1] == ordered[:, 1:]
        if tied.any():
            for place in range(block.shape[1] - 2, -1, -1):
                rows = tied[:, place]
                mass[rows, place] = mass[rows, place + 1]
                ranks[rows, place] = ranks[rows, place + 1]
        if self.method == "saps":
            mass = ordered[:, :1] + self.weight * (ranks - 1)
        if self.method == "raps":
            mass += self.penalty * np.maximum(ranks - self.free_ranks, 0)
        scores = np.empty_like(mass)
        np.put_along_axis(scores, order, mass, axis=1)
        return scores


def _rows(probabilities: ArrayLike) -> _checks.Floats:
    scores = _checks.probabilities(probabilities)
    empty = ~(scores > 0).any(axis=1)
    if empty.any():
        raise UserError(f"probabilities: row {int(np.argmax(empty))} is 0 for every class")
    return scores


def _row_blocks(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _BLOCK // shape[1])
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def fit_conformal(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    method: Method = "lac",
    alpha: float = 0.1,
    penalty: float = 0.01,
    free_ranks: int = 5,
    weight: float = 0.02,
) -> ConformalSets:
    """Fit conformal sets: a class enters where its score is at most a quantile of held-out labels' scores.

    Parameters
    ----------
    probabilities
        (n, C) in [0, 1].
    labels
        (n,) class numbers.
    method
        ``lac`` (also THR): score 1 - p_c. ``aps``: mass of the classes at least as probable as c, c
        included. ``raps``: that plus ``penalty`` x max(0, rank - ``free_ranks``). ``saps``: the highest probability
        plus ``weight`` x (rank - 1), so that of the other classes only the order counts. Without randomisation, so sets
        are a little large and never empty for ``aps`` on the fitting images.
    alpha
        Allowed share of images whose set misses the label.
    penalty, free_ranks
        Of ``raps`` only.
    weight
        Of ``saps`` only, at least 0.

    Returns
    -------
    ConformalSets
        Its quantile is the ceil((n + 1)(1 - alpha))-th smallest score.

    Raises
    ------
    UserError
        For NaN, inf or numbers outside [0, 1] (the row is named), labels that are not a class, no rows, other
        lengths.

    References
    ----------
    Sadinle, Lei and Wasserman 2019 (LAC); Romano, Sesia and Candes 2020 (APS);
    Angelopoulos et al. 2021 (RAPS); Huang et al., "Conformal prediction for deep classifier via label ranking", ICML
    2024 (SAPS).
    """
    rule = score_rule(method, alpha=alpha, penalty=penalty, free_ranks=free_ranks, weight=weight)
    scores = rule.label_scores(probabilities, labels)
    return replace(rule, quantile=upper_quantile(scores, rule.alpha), n=scores.size)


def score_rule(
    method: Method = "lac", *, alpha: float = 0.1, penalty: float = 0.01, free_ranks: int = 5, weight: float = 0.02
) -> ConformalSets:
    """Return a conformal predictor that is not fitted: it has scores, and lets every class in."""
    _checks.choice("method", method, METHODS)
    alpha = _checks.fraction("alpha", alpha, open_ends=True)
    penalty, weight = _checks.number("penalty", penalty, least=0), _checks.number("weight", weight, least=0)
    free_ranks = _checks.whole_number("free_ranks", free_ranks, least=0)
    return ConformalSets(
        method=method, alpha=alpha, penalty=penalty, free_ranks=free_ranks, weight=weight, quantile=np.inf, n=0
    )


def upper_quantile(scores: NDArray[np.float64], alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest score, inf where there are too few."""
    n = scores.size
    # The slack keeps (n + 1)(1 - alpha) that is a whole number from being rounded up past it.
    rank = int(np.ceil((n + 1) * (1 - alpha) - 1e-9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= n else float("inf")


ROWS = (
    Metric(
        "conformal_coverage", "Conformal coverage", "none", "fraction", version=4,
        evidence=Evidence(
            "mean_i [y_i is in the set of i]",
            "Sadinle et al. 2019 (LAC); Romano et al. 2020 (APS); Angelopoulos et al. 2021 (RAPS); Huang et al. "
            "2024 (SAPS)", "the definition, image by image",
            "test_metrics_other.py::test_conformal_sets_equal_the_definition",
        ),
    ),
    Metric(
        "conformal_size", "Conformal set size", "lower", high=INFINITY, version=5,
        evidence=Evidence(
            "mean_i of the number of classes in the set of i", "as conformal_coverage",
            "the definition, image by image", "test_metrics_other.py::test_conformal_sets_equal_the_definition",
        ),
    ),
)  # fmt: skip
