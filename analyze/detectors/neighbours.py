"""Detectors of the nearest rows of the training set: kNN and NNGuide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, LearntByWalk, Needs, check_range
from analyze.detectors.products import Right, multiply
from analyze.detectors.reference import Reference
from analyze.detectors.rows import TILE, Float32, Rows, logsumexp, row_sum
from analyze.detectors.walks import Bank, Largest, Walk, walked
from analyze.metrics.spec import Evidence
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


def smaller_bank(reference: Reference, per_class: int | None) -> NDArray[np.intp]:
    """Return the bank rows to use: all, or the first ``per_class`` of each class in the bank's (seeded) order."""
    labels = reference.bank_labels
    if per_class is None:
        return np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked, side="left")
    return np.sort(order[rank < per_class])


def _check_k(name: str, k: int, m: int) -> None:
    if k > m:
        raise UserError(f"{name}: k={k} is more than the {counted(m, 'row')} of the bank")


@dataclass(frozen=True)
class NearestNeighbour(Detector):
    """kNN (Sun et al. 2022): minus the Euclidean distance of f/|f| to its k-th nearest training row.

    Range [-2, 0]. OpenOOD negates the *squared* distance and adds 1e-10 outside the fraction: the same order. k counts
    rows of the bank: with 50 rows a class of 1,300, k = 50 reaches as far as k = 1,300 in the whole set.

    Attributes
    ----------
    k
        Which neighbour, from 1: 50 in OpenOOD. ``paper``: 1000, as the authors' script runs ImageNet with the whole
        training set (of a bank of 50 rows a class that is too far: scale it, or sweep).
    per_class
        Use only so many bank rows of each class.
    pca
        Search in the space of so many principal components of the bank; distances are then within that space.
    half
        Keep the bank in float16: half the memory.
    """

    k: int = 50
    per_class: int | None = None
    pca: int | None = None
    half: bool = False
    name = "knn"
    evidence = Evidence(
        "-|f/|f| - k-th nearest training row|", "Sun et al., ICML 2022", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-2.0, 0.0)
    needs = Needs(features=True, fitted_on=("bank",))
    paper: ClassVar[dict[str, Any]] = {"k": 1000}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"k": (50, 100, 200, 500, 1000)}

    def __post_init__(self) -> None:
        check_range(self.name, "k", self.k, 1, float("inf"), open_ends=False)
        if self.per_class is not None:
            check_range(self.name, "per_class", self.per_class, 1, float("inf"), open_ends=False)

    def _fit(self, inputs: Inputs) -> LearntByWalk:
        reference = inputs.the_reference()
        unit = reference.bank_unit
        if self.per_class is not None:
            unit = unit[smaller_bank(reference, self.per_class)]
        _check_k(self.name, self.k, len(unit))
        basis = centre = None
        if self.pca is not None:
            if not 0 < self.pca <= unit.shape[1]:
                raise UserError(
                    f"knn: pca={self.pca} must lie between 1 and {unit.shape[1]}, the width of the features"
                )
            basis, centre = principal_axes(unit, self.pca)
            unit = np.concatenate([multiply(unit[i : i + TILE] - centre, basis) for i in range(0, len(unit), TILE)])
        searched: NDArray[np.floating[Any]] = unit.astype(np.float16) if self.half else unit
        # nearest = largest q.b + (1 - |b|^2) / 2: one more column, unless all rows are of unit length
        gap = (1 - _squares(searched)) / 2
        uneven = bool((np.abs(gap) > 1e-6).any())
        if uneven:
            searched = np.concatenate([searched, gap[:, None].astype(searched.dtype)], axis=1)
        width, k = unit.shape[1], self.k

        def points(rows: Rows) -> Float32:
            queries = rows.of_unit_length()
            return queries.features if basis is None else queries.product(basis, minus=centre)

        def asked(rows: Rows) -> Float32:
            given = points(rows)
            return np.concatenate([given, np.ones((len(given), 1), np.float32)], axis=1) if uneven else given

        bank = reference.unit_bank if searched is reference.bank_unit else Bank.of(searched, asked, half=self.half)
        weights = np.ones(len(bank), np.float32)
        walk = Walk(bank, lambda rows: Largest(len(rows.features), k, weights))

        def rule(rows: Rows) -> Any:
            _, places = walked(rows, walk).sorted()
            nearest = searched[places[:, -1], :width].astype(np.float32)
            # the difference itself: the expansion would lose the digits of small distances
            return -np.sqrt(row_sum(np.square(points(rows) - nearest)))

        return LearntByWalk(rule, "bank", (f"bank of {counted(len(bank), 'row')}",), walk=walk)


def _squares(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Squared length of rows in float64, blockwise."""
    parts = [np.square(values[i : i + TILE].astype(np.float64)).sum(axis=1) for i in range(0, len(values), TILE)]
    return np.concatenate(parts)


def principal_axes(values: Float32, count: int) -> tuple[Right, Float32]:
    """Return the ``count`` principal axes of rows (D, count) and their mean (D,), from float64 sums."""
    total = np.zeros(values.shape[1])
    moment = np.zeros((values.shape[1], values.shape[1]))
    for start in range(0, len(values), TILE):
        block = values[start : start + TILE].astype(np.float64)
        total += block.sum(axis=0)
        moment += block.T @ block
    mean = total / len(values)
    _, vectors = np.linalg.eigh(moment / len(values) - np.outer(mean, mean))
    return Right.of(vectors[:, ::-1][:, :count].astype(np.float32)), mean.astype(np.float32)


@dataclass(frozen=True)
class NearestNeighbourGuidance(Detector):
    """NNGuide (Park et al. 2023): lse(z) times the mean of the k largest f/|f| . (f_i/|f_i| lse_i) over the bank.

    OpenOOD's bank is the first 1 % of the training list; here it is balanced over classes.

    Attributes
    ----------
    k
        Number of neighbours: 100 in OpenOOD. ``paper``: 10, as the authors' configuration and pytorch-ood.
    alpha
        Share of the bank's rows of each class that is used, in (0, 1]. OpenOOD's 0.01 is of the whole training set;
        here 1 is all of the bank, which is a few percent of that.
    """

    k: int = 100
    alpha: float = 1.0
    name = "nnguide"
    evidence = Evidence(
        "lse(z) mean over the k nearest of (f/|f|) . (f_i/|f_i|) lse(z_i)", "Park et al., ICCV 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True, features=True, fitted_on=("bank",))
    paper: ClassVar[dict[str, Any]] = {"k": 10}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"k": (1, 5, 10, 50, 100)}

    def __post_init__(self) -> None:
        check_range(self.name, "k", self.k, 1, float("inf"), open_ends=False)
        if not 0 < self.alpha <= 1:
            raise UserError(f"nnguide: alpha={self.alpha} must lie in (0, 1]")

    def _fit(self, inputs: Inputs) -> LearntByWalk:
        reference = inputs.the_reference()
        largest = int(np.bincount(reference.bank_labels).max())
        chosen = smaller_bank(reference, None if self.alpha == 1 else max(1, int(np.ceil(self.alpha * largest))))
        logits = reference.bank_logits[chosen]
        energy = np.concatenate(
            [logsumexp(logits[i : i + TILE].astype(np.float64)) for i in range(0, len(logits), TILE)]
        )
        bank = reference.unit_bank if self.alpha == 1 else Bank.of(reference.bank_unit[chosen])
        _check_k(self.name, self.k, len(chosen))
        weights, k = energy.astype(np.float32), self.k
        walk = Walk(bank, lambda rows: Largest(len(rows.features), k, weights))

        def rule(rows: Rows) -> Any:
            values, _ = walked(rows, walk).sorted()
            return rows.logsumexp * row_sum(values) / np.float32(k)

        return LearntByWalk(rule, "bank", (f"bank of {counted(len(chosen), 'row')}",), walk=walk)


DETECTORS = (NearestNeighbour, NearestNeighbourGuidance)
