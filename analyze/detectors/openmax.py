"""OpenMax: Weibull tails of the distances to class means decide how much of each logit goes to an unknown class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.rows import Rows, logsumexp, row_sum
from analyze.metrics.spec import Evidence
from closerlook_common.console.terminal import counted

TRANSLATION = 10_000.0
"""libMR shifts every tail by this constant before fitting; kept, because it is part of the published numbers."""


class Weibull(NamedTuple):
    """Shape and log of the scale of each tail, and the tail's least value, all (C,); shape 0 where there is none."""

    shape: NDArray[np.float64]
    log_scale: NDArray[np.float64]
    least: NDArray[np.float64]

    def unknown(self, distance: NDArray[np.float64], classes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the probability that a distance exceeds the tail's, in [0, 1]; 1 for a class without a tail."""
        shifted = np.maximum(distance - self.least[classes] + TRANSLATION, np.finfo(np.float64).tiny)
        exponent = self.shape[classes] * (np.log(shifted) - self.log_scale[classes])
        inside = -np.expm1(-np.exp(np.minimum(exponent, 700.0)))
        return np.asarray(np.where(self.shape[classes] > 0, inside, 1.0))


def fit_tails(tails: list[NDArray[np.float64]]) -> Weibull:
    """Fit a two-parameter Weibull distribution to each tail by maximum likelihood, all at once.

    Parameters
    ----------
    tails
        The largest distances of each class, each of shape (t,); fewer than two distinct ones make no fit.

    Notes
    -----
    The likelihood equation sum x^s log x / sum x^s - mean log x = 1/s is solved for the shape s by bisection on the
    logarithms relative to the largest value, where nothing overflows however large s is (with the shift by 10,000 it is
    in the thousands).
    """
    n = len(tails)
    width = max((len(tail) for tail in tails), default=1) or 1
    logs = np.zeros((n, width))
    used = np.zeros((n, width), np.bool_)
    least, top = np.zeros(n), np.zeros(n)
    for i, tail in enumerate(tails):
        if len(tail) < 2 or tail.min() == tail.max():
            continue
        least[i], top[i] = tail.min(), tail.max()
        logs[i, : len(tail)] = np.log1p((tail - top[i]) / (top[i] - least[i] + TRANSLATION))
        used[i, : len(tail)] = True
    fitted = used.any(axis=1)
    count = np.maximum(used.sum(axis=1), 1)
    mean = logs.sum(axis=1) / count

    def excess(shape: NDArray[np.float64]) -> NDArray[np.float64]:
        powers = np.where(used, np.exp(shape[:, None] * logs), 0.0)
        total = np.where(fitted, powers.sum(axis=1), 1.0)
        return np.asarray((powers * logs).sum(axis=1) / total - mean - 1 / shape)

    low, high = np.full(n, 1e-3), np.full(n, 1e12)
    for _ in range(200):
        middle = np.sqrt(low * high)
        too_large = excess(middle) > 0
        low, high = np.where(too_large, low, middle), np.where(too_large, middle, high)
    shape = np.sqrt(low * high)
    powers = np.where(used, np.exp(shape[:, None] * logs), 0.0).sum(axis=1) / count
    log_scale = np.log(top - least + TRANSLATION) + np.log(np.where(fitted, powers, 1.0)) / shape
    return Weibull(np.where(fitted, shape, 0.0), log_scale, least)


@dataclass(frozen=True)
class OpenMax(Detector):
    """OpenMax (Bendale & Boult 2016) as an OOD score: log-odds of the known classes against the unknown one.

    Monotone in minus the probability of the unknown class, without its ties at 0 and 1. Class means are of the logits
    of correctly predicted training rows (from sums over all of them where the reference has these); tails are of the
    bank's correct rows. A class with fewer than two distinct distances counts as unknown at any distance (as in
    pytorch-ood; OpenOOD fails). Distances are Euclidean.

    Attributes
    ----------
    tail
        Largest distances of each class that a Weibull distribution is fitted to: 20 in OpenOOD and the authors' code.
    alpha
        How many of the largest logits are revised: 3 in OpenOOD. ``paper``: 10, ``ALPHA_RANK`` of the authors' code
        (whose distance is Euclidean plus cosine; this is OpenOOD's).
    """

    tail: int = 20
    alpha: int = 3
    name = "openmax"
    evidence = Evidence(
        "log odds of the known classes after Weibull revision of the alpha largest logits",
        "Bendale and Boult, CVPR 2016", "scipy's Weibull fit, row by row; the order of pytorch-ood",
        "test_detectors_oracles.py::test_openmax",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True, fitted_on=("bank",))
    paper: ClassVar[dict[str, Any]] = {"alpha": 10}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"tail": (10, 20, 30, 40, 50), "alpha": (1, 3, 5, 10, 20)}

    def __post_init__(self) -> None:
        check_range(self.name, "tail", self.tail, 2, float("inf"), open_ends=False)
        check_range(self.name, "alpha", self.alpha, 1, float("inf"), open_ends=False)

    def _fit(self, inputs: Inputs) -> Learnt:
        reference = inputs.the_reference()
        n_classes = reference.n_classes
        logits, labels = reference.bank_logits, reference.bank_labels
        right = np.flatnonzero(logits.argmax(axis=1) == labels)
        means = np.zeros((n_classes, n_classes))
        in_bank = np.bincount(labels[right], minlength=n_classes)
        if reference.correct_logit_sum is not None:
            present = np.flatnonzero(reference.correct_count)
            means[present] = reference.correct_logit_sum[present] / reference.correct_count[present, None]
        else:
            np.add.at(means, labels[right], logits[right].astype(np.float64))
            means /= np.maximum(in_bank, 1)[:, None]
        tails: list[NDArray[np.float64]] = []
        for c in range(n_classes):
            rows = right[labels[right] == c]
            distances = np.linalg.norm(logits[rows].astype(np.float64) - means[c], axis=1)
            tails.append(np.sort(distances)[-self.tail :])
        weibull = fit_tails(tails)
        alpha = min(self.alpha, n_classes)
        weights = (alpha - np.arange(alpha)) / alpha

        def rule(rows: Rows) -> Any:
            z = rows.logits.astype(np.float64)
            ranked = np.argsort(-z, axis=1, kind="stable")[:, :alpha]
            unknown = np.zeros(len(z))
            revised = z.copy()
            for rank in range(alpha):
                classes = ranked[:, rank]
                distance = np.sqrt(row_sum(np.square(z - means[classes])))
                taken = np.take_along_axis(z, classes[:, None], axis=1)[:, 0]
                taken = taken * weibull.unknown(distance, classes) * weights[rank]
                revised[np.arange(len(z)), classes] -= taken
                unknown += taken
            return logsumexp(revised) - unknown

        without = int((weibull.shape == 0).sum())
        text = f"{counted(without, 'class', 'classes')} without two distinct correct rows in the bank"
        notes = (text,) if without else ()
        return Learnt(rule, "bank", notes)


DETECTORS = (OpenMax,)
