"""Relation: how much the training rows agree with a row, in direction and in their softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, LearntByWalk, Needs, check_range
from analyze.detectors.products import multiply
from analyze.detectors.rows import TILE, Float32, Rows, row_sum
from analyze.detectors.walks import Bank, Walk, walked
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.console.terminal import counted

FEW_PAIRS = 0.01
"""Least threshold at which agreements are looked for pair by pair: a lower one is met by too many."""


@dataclass(frozen=True)
class Relation(Detector):
    """Relation (Kim et al. 2023): sum over the bank of r_i^power where r_i > threshold, r_i = max(0, cos) (p . p_i).

    A sum, as in OpenOOD: it grows with the bank.

    Attributes
    ----------
    power
        Exponent > 0: 1 in OpenOOD.
    threshold
        Relations at or under it do not count: 0.03 in OpenOOD.
    """

    power: float = 1.0
    threshold: float = 0.03
    name = "relation"
    evidence = Evidence(
        "sum_i r_i^power [r_i > threshold], r_i = max(0, cos(f, f_i)) (p . p_i)", "Kim et al., NeurIPS 2023",
        "the formula, row by row", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, INFINITY)
    needs = Needs(logits=True, features=True, fitted_on=("bank",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"power": (1, 2, 4, 6, 8)}

    def __post_init__(self) -> None:
        check_range(self.name, "power", self.power, 0, float("inf"))
        check_range(self.name, "threshold", self.threshold, 0, 1, open_ends=False)

    def _fit(self, inputs: Inputs) -> LearntByWalk:
        reference = inputs.the_reference()
        bank, logits = reference.unit_bank, reference.bank_logits
        p = np.concatenate([softmax(logits[i : i + TILE]) for i in range(0, len(logits), TILE)])
        power, threshold = float(self.power), float(self.threshold)
        if threshold < FEW_PAIRS:
            agreements = Bank.of(p)
            walk = Walk(bank, lambda rows: _AllPairs(rows.probabilities, agreements, threshold, power))
        else:
            likely = LikelyPairs(p, threshold)
            walk = Walk(bank, lambda rows: _FewPairs(likely.find(rows.probabilities), threshold, power))

        def rule(rows: Rows) -> Any:
            return walked(rows, walk).total

        return LearntByWalk(rule, "bank", (f"bank of {counted(len(bank), 'row')}",), walk=walk)


class _AllPairs:
    """The sum over all pairs, whose agreements are one more product."""

    def __init__(self, probabilities: Float32, agreements: Bank, threshold: float, power: float) -> None:
        self.total = np.zeros(len(probabilities))
        self._probabilities, self._blocks = probabilities, agreements.blocks()
        self._options = threshold, power

    def visit(self, first: int, similarity: Float32) -> None:
        """Add the relations to a block of the bank."""
        from analyze.detectors._relation_kernels import add_all_relations

        _, block = next(self._blocks)
        add_all_relations(similarity, multiply(self._probabilities, block), *self._options, self.total)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a row and a row of the bank that agree enough to count, by row and in the bank's order.

    Attributes
    ----------
    columns, agreements
        (n, k) the bank's row, int32, and p . p_i, float32; undefined from ``counts`` on.
    counts
        (n,) int64.
    """

    columns: NDArray[np.int32]
    agreements: Float32
    counts: NDArray[np.int64]


class _FewPairs:
    """The sum over the pairs that agree enough."""

    def __init__(self, pairs: Pairs, threshold: float, power: float) -> None:
        self.total = np.zeros(len(pairs.counts))
        self._pairs, self._options = pairs, (threshold, power)
        self._done = np.zeros(len(pairs.counts), np.int64)

    def visit(self, first: int, similarity: Float32) -> None:
        """Add the relations to a block of the bank."""
        from analyze.detectors._relation_kernels import add_relations

        pairs = self._pairs
        add_relations(
            similarity, first, pairs.columns, pairs.agreements, pairs.counts, self._done, *self._options, self.total
        )


class LikelyPairs:
    """Finds the rows of a bank whose softmax agrees with that of a row, without comparing with all of them.

    Of p . p_i, classes that have at most a quarter of the threshold in p add at most that quarter together, and so do
    those that have at most a quarter of it in p_i. What the remaining ones add has to be half of the threshold, so that
    only the rows that are listed under the likely classes of p are looked at.

    Parameters
    ----------
    probabilities : ndarray of shape (m, C)
        Softmax of the bank, float32.
    threshold
        Relations at or under it do not count; a cosine is at most 1, so that agreements under it do not either.
    """

    def __init__(self, probabilities: Float32, threshold: float) -> None:
        self._probabilities, self._threshold = probabilities, threshold
        # the bank's rows by their likely classes: where each class begins, rows, and their probabilities of it
        rows, classes = np.nonzero(probabilities > np.float32(threshold / 4))
        order = np.argsort(classes, kind="stable")
        starts = np.searchsorted(classes[order], np.arange(probabilities.shape[1] + 1))
        self._lists = starts, rows[order].astype(np.int32), probabilities[rows, classes][order]
        self._room = 256

    def find(self, probabilities: Float32) -> Pairs:
        """Return the pairs of some rows, (n, C), with rows of the bank that can count."""
        from analyze.detectors._relation_kernels import find_pairs

        slack = 1 - 1e-3  # far more than rounding takes away
        limits = np.array([self._threshold / 4, slack * self._threshold / 2, slack * self._threshold], np.float32)
        n, counts = len(probabilities), np.zeros(len(probabilities), np.int64)
        while True:
            columns, agreements = np.empty((n, self._room), np.int32), np.empty((n, self._room), np.float32)
            find_pairs(probabilities, self._probabilities, *self._lists, limits, columns, agreements, counts)
            most = int(counts.max(initial=0))
            if most <= columns.shape[1]:
                return Pairs(columns, agreements, counts)
            self._room = most + most // 4


def softmax(logits: NDArray[Any]) -> Float32:
    """Softmax of rows in float32."""
    powers = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True).astype(np.float32))
    return np.asarray(powers / row_sum(powers)[:, None])


DETECTORS = (Relation,)
