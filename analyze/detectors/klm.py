"""KL-matching: how far the softmax is from the nearest of the typical softmaxes, one of each predicted class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Fitted, Inputs, Learnt, Needs
from analyze.detectors.products import Right, multiply
from analyze.detectors.rows import TILE, Rows
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.console.terminal import counted

LOG_ZERO = float(np.log(np.finfo(np.float64).tiny))
"""Used as the logarithm of a mean probability of exactly 0 (-708): finite, and never part of a minimum."""


@dataclass(frozen=True)
class KLMatching(Detector):
    """KL-matching (Hendrycks et al. 2022): -min_c KL(p || q_c), range (-inf, 0].

    q_c is the mean softmax of the rows *predicted* as c: of the validation rows where they are given (as the paper and
    OpenOOD do), else of the training set (as the codes of GEN and ViM do). Classes that nothing is predicted as are
    left out; OpenOOD makes their q a one-hot vector of the class, which matters only to a row that is one-hot itself.
    """

    name = "klm"
    evidence = Evidence(
        "-min_c KL(p || q_c), q_c the mean softmax of rows predicted as c", "Hendrycks et al., ICML 2022",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(logits=True, fitted_on=("validation", "reference"))

    def _fit(self, inputs: Inputs) -> Learnt:
        rows = inputs.validation
        if rows is not None and rows.logits is not None:
            return _learnt(*softmax_sums(np.asarray(rows.logits)), "validation")
        reference = inputs.the_reference()
        return _learnt(reference.softmax_sum, reference.predicted_count, "reference")

    @classmethod
    def of_sums(cls, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> Fitted:
        """Return the detector of validation rows that were summed block by block by ``softmax_sums``."""
        learnt = _learnt(sums, counts, "validation")
        return Fitted(cls.name, {}, cls.needs, learnt.fitted_on, learnt.notes, _rule=learnt.rule)


def _learnt(sums: NDArray[np.float64], counts: NDArray[np.int64], fitted_on: str) -> Learnt:
    seen = np.flatnonzero(counts)
    typical = sums[seen] / counts[seen, None]
    with np.errstate(divide="ignore"):
        logarithms = np.maximum(np.log(typical), LOG_ZERO)
    columns = Right.of(logarithms.T.astype(np.float32))

    def rule(rows: Rows) -> Any:
        return np.minimum(multiply(rows.probabilities, columns).max(axis=1) - rows.negative_entropy, np.float32(0))

    unseen = len(counts) - len(seen)
    notes = (f"without {counted(unseen, 'class', 'classes')} that nothing is predicted as",) if unseen else ()
    return Learnt(rule, fitted_on, notes)


def softmax_sums(logits: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum the softmax of rows by predicted class, (C, C) float64, and count them, (C,)."""
    n_classes = logits.shape[1]
    sums = np.zeros((n_classes, n_classes))
    counts = np.zeros(n_classes, np.int64)
    for start in range(0, len(logits), TILE):
        z = logits[start : start + TILE].astype(np.float64)
        predicted = z.argmax(axis=1)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        order = np.argsort(predicted, kind="stable")
        present, first = np.unique(predicted[order], return_index=True)
        sums[present] += np.add.reduceat(p[order], first, axis=0)
        counts += np.bincount(predicted, minlength=n_classes)
    return sums, counts


DETECTORS = (KLMatching,)
