"""Detectors of where the features point: at the mean pattern of the predicted class, its weights, its boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.rows import Float32, Rows, row_sum
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class Hopfield(Detector):
    """SHE (Zhang et al. 2023): similarity of f to the mean feature of *correctly predicted* rows of its class.

    A class without a correct row takes the mean of all its rows, one without rows the mean of all features (OpenOOD and
    pytorch-ood fail there); the fitted detector's notes count them.

    Attributes
    ----------
    metric
        ``inner_product``, ``cosine`` or ``euclidean`` (negative distance).
    """

    metric: str = "inner_product"
    name = "she"
    evidence = Evidence(
        "f . mean of correctly predicted training features of the predicted class", "Zhang et al., ICLR 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(logits=True, features=True, fitted_on=("reference",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"metric": ("inner_product", "cosine", "euclidean")}

    def __post_init__(self) -> None:
        if self.metric not in self.sweep["metric"]:
            raise UserError(f"she: metric={self.metric!r} must be one of {', '.join(self.sweep['metric'])}")

    def _fit(self, inputs: Inputs) -> Learnt:
        reference = inputs.the_reference()
        patterns = np.repeat(reference.mean[None], reference.n_classes, axis=0)
        patterns[reference.seen] = reference.class_means
        right = np.flatnonzero(reference.correct_count)
        patterns[right] = reference.correct_feature_sum[right] / reference.correct_count[right, None]
        if self.metric == "cosine":
            length = np.linalg.norm(patterns, axis=1, keepdims=True)
            patterns /= np.where(length > 0, length, 1)
        table, metric = patterns.astype(np.float32), self.metric

        def rule(rows: Rows) -> Any:
            if metric == "euclidean":
                return -np.sqrt(row_sum(np.square(rows.features - table[rows.predicted])))
            inner = _dots(rows.features, table, rows.predicted)
            return inner if metric == "inner_product" else inner / np.where(rows.norm > 0, rows.norm, np.float32(1))

        without = reference.n_classes - len(right)
        text = f"{counted(without, 'class', 'classes')} without a correct row: mean of all their rows"
        notes = (text,) if without else ()
        return Learnt(rule, "reference", notes)


@dataclass(frozen=True)
class NeuralCollapse(Detector):
    """NCI (Liu & Qin 2025): w_y . (f - mu) / |f - mu| + alpha |f|_1, w_y the weights of the predicted class.

    Attributes
    ----------
    alpha
        Weight of the feature norm: 1e-4 in OpenOOD (pytorch-ood: 0).
    """

    alpha: float = 1e-4
    name = "nci"
    evidence = Evidence(
        "w_y . (f - mu) / |f - mu| + alpha |f|_1", "Liu and Qin, CVPR 2025", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(logits=True, features=True, head=True, fitted_on=("reference",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"alpha": (0.0, 1e-4, 1e-3, 1e-2, 5e-2, 1e-1)}

    def __post_init__(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0, float("inf"), open_ends=False)

    def _fit(self, inputs: Inputs) -> Learnt:
        head, mean = inputs.the_head(), inputs.the_reference().mean32
        alpha = np.float32(self.alpha)

        def rule(rows: Rows) -> Any:
            angle = _dots(rows.less(mean), head.weight, rows.predicted) / rows.distance(mean)
            return angle + alpha * rows.absolute_sum if alpha else angle

        return Learnt(rule, "reference")


@dataclass(frozen=True)
class BoundaryDistance(Detector):
    """fDBD (Liu & Qin 2024): distances to the decision boundaries, sum_c |z_c - z_y| / |w_c - w_y|, over |f - mu|.

    As OpenOOD, a sum (pytorch-ood averages over C - 1: the same order). Classes of equal weights have no boundary and
    count as 0.

    Attributes
    ----------
    normalizer
        ``distance`` (to the mean of the training features; OpenOOD's default) or ``norm`` (of the features; needs no
        reference, but takes one).
    """

    normalizer: str = "distance"
    name = "fdbd"
    evidence = Evidence(
        "sum_c |z_c - z_y| / |w_c - w_y| / |f - mu|", "Liu and Qin, ICML 2024",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, INFINITY)
    needs = Needs(logits=True, features=True, head=True, fitted_on=("reference",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"normalizer": ("distance", "norm")}

    def __post_init__(self) -> None:
        if self.normalizer not in self.sweep["normalizer"]:
            raise UserError(f"fdbd: normalizer={self.normalizer!r} must be 'distance' or 'norm'")

    def missing(self, *, reference: bool, bank: bool, head: bool, validation: bool, negatives: bool) -> str:
        """As for every detector; the norm needs no reference."""
        reference = reference or self.normalizer == "norm"
        return super().missing(reference=reference, bank=bank, head=head, validation=validation, negatives=negatives)

    def _fit(self, inputs: Inputs) -> Learnt:
        head = inputs.the_head()
        inverse = _inverse_distances(head.weight)
        mean = inputs.the_reference().mean32 if self.normalizer == "distance" else None

        def rule(rows: Rows) -> Any:
            from analyze.detectors._row_kernels import gap_sums

            total = np.empty(len(rows.logits), np.float32)
            gap_sums(rows.logits, rows.largest, inverse, rows.predicted, total)
            return total / (np.maximum(rows.norm, np.float32(1e-8)) if mean is None else rows.distance(mean))

        return Learnt(rule, "" if mean is None else "reference")


def _dots(values: Float32, table: Float32, chosen: NDArray[np.intp]) -> Float32:
    """Inner product of each row with the row of a table that was chosen for it, (n,)."""
    from analyze.detectors._row_kernels import row_dots

    result = np.empty(len(values), np.float32)
    row_dots(values, table, chosen, result)
    return result


def _inverse_distances(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / |w_c - w_k| for all pairs, 0 where the rows are equal, (C, C) float32."""
    w = weight.astype(np.float64)
    squares = np.square(w).sum(axis=1)
    result = np.empty((len(w), len(w)), np.float32)
    for start in range(0, len(w), 1024):
        part = slice(start, start + 1024)
        distance = squares[part, None] + squares[None] - 2 * (w[part] @ w.T)
        # differences this small are rounding of the expansion: take the pair itself
        for i, j in np.argwhere(distance < 1e-9 * (squares[part, None] + squares[None])):
            distance[i, j] = np.square(w[start + i] - w[j]).sum()
        with np.errstate(divide="ignore"):
            result[part] = np.where(distance > 0, 1 / np.sqrt(np.maximum(distance, 0)), 0)
    return result


DETECTORS = (Hopfield, NeuralCollapse, BoundaryDistance)
