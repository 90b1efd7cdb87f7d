"""Conformal prediction: sets of classes that hold the label with a probability fixed beforehand.

The promise, coverage of at least 1 - alpha, is for images like those fitted on; coverage under shift shows
what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from cache_schema.errors import UserError

Method = Literal["lac", "aps", "raps"]

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ConformalSets:
    """A fitted conformal predictor; make one with :func:`fit_conformal`.

    Attributes
    ----------
    method, alpha, penalty, free_ranks
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

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return the prediction sets, (n, C) booleans."""
        scores = _checks.probabilities(probabilities)
        answer = np.empty(scores.shape, np.bool_)
        for rows in _row_blocks(scores.shape):
            answer[rows] = self._scores(scores[rows]) <= self.quantile
        return answer

    def coverage(self, probabilities: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of images whose set holds the label; at least 1 - alpha is promised."""
        inside = self.label_scores(probabilities, labels) <= self.quantile
        return int(np.count_nonzero(inside)) / inside.size

    def mean_size(self, probabilities: ArrayLike) -> float:
        """Return the mean number of classes in a set. Lower is better, at equal coverage."""
        scores = _checks.probabilities(probabilities)
        blocks = _row_blocks(scores.shape)
        total = sum(int(np.count_nonzero(self._scores(scores[rows]) <= self.quantile)) for rows in blocks)
        return total / int(scores.shape[0])

    def label_scores(self, probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """Return the score of each image's label, (n,): the lower, the sooner it enters the set."""
        scores = _checks.probabilities(probabilities)
        classes = _checks.labels(labels, scores.shape[1], scores.shape[0])
        own = np.empty(scores.shape[0])
        for rows in _row_blocks(scores.shape):
            own[rows] = np.take_along_axis(self._scores(scores[rows]), classes[rows, None], axis=1)[:, 0]
        return own

    def _scores(self, block: _checks.Floats) -> NDArray[np.float64]:
        probability = block.astype(np.float64)
        if self.method == "lac":
            return 1 - probability
        order = np.argsort(-probability, axis=1, kind="stable")
        ordered = np.take_along_axis(probability, order, axis=1)
        mass = np.cumsum(ordered, axis=1)
        ranks = np.broadcast_to(np.arange(1, block.shape[1] + 1), mass.shape).copy()
        # Equal probabilities enter together: the last of them speaks for all, whatever the order of classes.
        tied = ordered[:, :-1] == ordered[:, 1:]
        if tied.any():
            for place in range(block.shape[1] - 2, -1, -1):
                rows = tied[:, place]
                mass[rows, place] = mass[rows, place + 1]
                ranks[rows, place] = ranks[rows, place + 1]
        if self.method == "raps":
            mass += self.penalty * np.maximum(ranks - self.free_ranks, 0)
        scores = np.empty_like(mass)
        np.put_along_axis(scores, order, mass, axis=1)
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
        included. ``raps``: that plus ``penalty`` x max(0, rank - ``free_ranks``). Without randomisation, so
        sets are a little large and never empty for ``aps`` on the fitting images.
    alpha
        Allowed share of images whose set misses the label.
    penalty, free_ranks
        Of ``raps`` only.

    Returns
    -------
    ConformalSets
        Its quantile is the ceil((n + 1)(1 - alpha))-th smallest score.

    Raises
    ------
    UserError
        For NaN, inf or numbers outside [0, 1] (the row is named), labels that are no class, no rows, other
        lengths.

    References
    ----------
    Sadinle, Lei and Wasserman 2019 (LAC); Romano, Sesia and Candes 2020 (APS);
    Angelopoulos et al. 2021 (RAPS).
    """
    _checks.choice("method", method, ("lac", "aps", "raps"))
    _checks.fraction("alpha", alpha, open_ends=True)
    if not penalty >= 0:
        raise UserError(f"penalty must be at least 0; got {penalty!r}")
    free_ranks = _checks.whole_number("free_ranks", free_ranks, least=0)
    options = {"method": method, "alpha": alpha, "penalty": penalty, "free_ranks": free_ranks}
    unfitted = ConformalSets(**options, quantile=np.inf, n=0)  # type: ignore[arg-type]
    scores = np.sort(unfitted.label_scores(probabilities, labels))
    n = scores.size
    # The slack keeps (n + 1)(1 - alpha) that is a whole number from being rounded up past it.
    rank = int(np.ceil((n + 1) * (1 - alpha) - 1e-9))
    quantile = float(scores[rank - 1]) if rank <= n else float("inf")
    return ConformalSets(**options, quantile=quantile, n=n)  # type: ignore[arg-type]
