"""ViM and Residual: how much of a row lies outside the principal subspace of the training features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs
from analyze.detectors.head import Head
from analyze.detectors.products import Right
from analyze.detectors.reference import Reference
from analyze.detectors.rows import TILE, Rows, unit_of
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class Subspace:
    """Axes of features around an origin, those of least variance first.

    Attributes
    ----------
    origin
        u = -pinv(W) b, the point whose logits are as close to zero as the head allows, (D,) float32.
    axes
        Eigenvectors of the second moment around it by ascending eigenvalue, (D, D) float32.
    """

    origin: NDArray[np.float32]
    axes: Right

    @staticmethod
    def of(moment: NDArray[np.float64], origin: NDArray[np.float64]) -> Subspace:
        """Return the axes of a second moment (D, D)."""
        _, vectors = np.linalg.eigh((moment + moment.T) / 2)
        return Subspace(origin.astype(np.float32), Right.of(vectors.astype(np.float32)))

    def residual(self, rows: Rows, dim: int) -> NDArray[np.float32]:
        """Return the length of each row outside the ``dim`` axes of largest variance, (n,)."""
        from analyze.detectors._row_kernels import square_sums

        left = self.axes.columns - dim
        squares = np.empty(len(rows.features), np.float32)
        square_sums(rows.leading(self.axes, left, self.origin), left, squares)
        return np.asarray(np.sqrt(squares))


_FITTED: WeakKeyDictionary[Reference, dict[bytes, Subspace]] = WeakKeyDictionary()


def subspace_of(reference: Reference, head: Head) -> Subspace:
    """Return a training set's axes around a head's origin, computed once for all detectors."""
    fitted = _FITTED.setdefault(reference, {})
    key = hashlib.blake2b(head.weight.tobytes() + head.bias.tobytes()).digest()
    if key not in fitted:
        origin = origin_of(head)
        fitted[key] = Subspace.of(moment_around(reference, origin), origin)
    return fitted[key]


def origin_of(head: Head) -> NDArray[np.float64]:
    """Return u = -pinv(W) b, (D,)."""
    return np.asarray(-np.linalg.pinv(head.weight.astype(np.float64)) @ head.bias.astype(np.float64))


def moment_around(reference: Reference, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of (f - u)(f - u)^T from sums, (D, D)."""
    cross = np.outer(reference.mean, origin)
    return np.asarray(reference.second_moment / reference.n - cross - cross.T + np.outer(origin, origin))


def resolve_dim(name: str, dim: int | None, default: int, width: int) -> tuple[int, tuple[str, ...]]:
    """Return the dimension of the principal subspace, and a note where the default had to be replaced.

    Raises
    ------
    UserError
        Where a dimension that was asked for is not below the width of the features.
    """
    if dim is not None:
        if not 0 < dim < width:
            raise UserError(f"{name}: dim={dim} must lie between 1 and {width - 1}: the features have width {width}")
        return dim, ()
    if default < width:
        return default, ()
    return max(1, width // 2), (f"dim {max(1, width // 2)}: features of width {width} have no {default} dimensions",)


def mean_length(reference: Reference, axes: Subspace, dim: int) -> float:
    """Estimate the mean residual length over the training set from its bank (exact where that is all of it)."""
    total = 0.0
    for start in range(0, len(reference.bank_labels), TILE):
        part = slice(start, start + TILE)
        lengths = axes.residual(Rows(reference.bank_features[part].astype(np.float32), None), dim)
        total += float(lengths.astype(np.float64) @ reference.bank_weight[part])
    return total


@dataclass(frozen=True)
class VirtualLogit(Detector):
    """ViM (Wang et al. 2022): lse(z) - alpha |R (f - u)|.

    u = -pinv(W) b; R the eigenvectors of the training features' second moment around u beyond the first ``dim``; alpha
    the mean largest logit over the mean residual length on the training set. The second moment and the mean largest
    logit come from sums over the whole set; the mean length, which no sum gives, from the bank, weighted by the
    classes' frequencies.

    Attributes
    ----------
    dim
        Dimension of the principal subspace; None for 256 (OpenOOD), or half the width where that is not larger.
        The paper's code takes 1000 for widths of 2048 and more, else 512: ``dim="paper"``.
    """

    dim: int | str | None = None
    name = "vim"
    evidence = Evidence(
        "lse(z) - alpha |R (f - u)|, R the residual directions of the training features", "Wang et al., CVPR 2022",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True, features=True, head=True, fitted_on=("bank",))
    paper: ClassVar[dict[str, Any]] = {"dim": "paper"}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"dim": (256, 1000)}

    def __post_init__(self) -> None:
        if isinstance(self.dim, str) and self.dim != "paper":
            raise UserError(f"vim: dim={self.dim!r} must be a number or 'paper'")

    def _fit(self, inputs: Inputs) -> Learnt:
        reference, head = inputs.the_reference(), inputs.the_head()
        if isinstance(self.dim, str):
            dim, notes = resolve_dim(self.name, None, 1000 if reference.width >= 2048 else 512, reference.width)
        else:
            dim, notes = resolve_dim(self.name, self.dim, 256, reference.width)
        axes = subspace_of(reference, head)
        length = mean_length(reference, axes, dim)
        if not length > 0:
            raise UserError(f"vim: the training features have no residual beyond {dim} dimensions; give a smaller dim")
        alpha = np.float32(reference.max_logit_sum / reference.n / length)

        def rule(rows: Rows) -> Any:
            return rows.logsumexp - alpha * axes.residual(rows, dim)

        return Learnt(rule, "bank", (*notes, f"alpha {float(alpha):.6g}"))


@dataclass(frozen=True)
class Residual(Detector):
    """Residual: -|R (f - u)|, R and u as for ViM but fitted on validation features where they are given (OpenOOD).

    Attributes
    ----------
    dim
        Dimension of the principal subspace; None for 512, or half the width where that is not larger.
    """

    dim: int | None = None
    name = "residual"
    evidence = Evidence(
        "-|R (f - u)|, R the residual directions of the features", "Wang et al., CVPR 2022",
        "the formula, row by row", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(features=True, head=True, fitted_on=("validation", "reference"))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"dim": (128, 256, 512, 1000)}

    def _fit(self, inputs: Inputs) -> Learnt:
        head = inputs.the_head()
        dim, notes = resolve_dim(self.name, self.dim, 512, head.width)
        rows = inputs.validation
        if rows is not None and rows.features is not None:
            values, origin = np.asarray(rows.features), origin_of(head)
            values = unit_of(values) if inputs.unit else values
            moment = np.zeros((head.width, head.width))
            for start in range(0, len(values), TILE):
                block = values[start : start + TILE].astype(np.float64) - origin
                moment += block.T @ block
            axes, place = Subspace.of(moment / len(values), origin), "validation"
        else:
            axes, place = subspace_of(inputs.the_reference(), head), "reference"
        return Learnt(lambda rows: -axes.residual(rows, dim), place, notes)


DETECTORS = (VirtualLogit, Residual)
