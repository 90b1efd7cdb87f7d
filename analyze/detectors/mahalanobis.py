"""Mahalanobis distance to the nearest class, and the same less the distance to the whole: one basis serves both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs
from analyze.detectors.products import Right, multiply
from analyze.detectors.reference import Reference
from analyze.detectors.rows import Rows, row_sum
from analyze.metrics.spec import INFINITY, Evidence

SINGLE_LIMIT = 1e6
"""Largest condition number of a covariance for which float32 products keep three digits; float64 beyond."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Class-conditional Gaussians of one covariance and one background Gaussian, in a basis that makes both diagonal.

    Attributes
    ----------
    origin
        Overall mean, (D,) float32.
    basis
        (D, r): y = (f - origin) @ basis has within-class covariance 1.
    doubled_means, mean_lengths
        Twice the class means in that basis, (r, C'), and their squared lengths, (C',).
    background
        Inverse variance of y around the overall mean, (r,); in [0, 1].
    background_basis
        Whitening of its own for the background, where classes differ in directions in which rows of one class do not:
        its distance sees these, the class distance, by the pseudo-inverse, does not. None where there are none.
    rank
        r.
    """

    origin: NDArray[np.float32]
    basis: Right
    doubled_means: Right
    mean_lengths: NDArray[Any]
    background: NDArray[Any]
    background_basis: Right | None
    rank: int

    def class_part(self, rows: Rows) -> NDArray[Any]:
        """Return min over classes of |nu_c|^2 - 2 y nu_c, (n,)."""
        return rows.once(self.doubled_means, lambda: self._class_part(rows))

    def _class_part(self, rows: Rows) -> NDArray[Any]:
        from analyze.detectors._row_kernels import largest_less

        cross = multiply(self.coordinates(rows), self.doubled_means)
        if cross.dtype != np.float32:
            return np.asarray((self.mean_lengths - cross).min(axis=1))
        best = np.empty(len(cross), np.float32)
        largest_less(cross, self.mean_lengths, best)
        return -best

    def lengths(self, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return |y|^2, and what it exceeds the squared distance to the whole by; both (n,)."""
        return rows.once(self.background, lambda: self._lengths(rows))

    def _lengths(self, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
        from analyze.detectors._row_kernels import weighted_squares

        y = self.coordinates(rows)
        plain, weighted = np.empty(len(y), y.dtype), np.empty(len(y), y.dtype)
        weighted_squares(y, 1 - self.background, plain, weighted)
        return plain, weighted

    def coordinates(self, rows: Rows) -> NDArray[Any]:
        """Return y, (n, r)."""
        return rows.product(self.basis, minus=self.origin)


_FITTED: WeakKeyDictionary[Reference, Gaussians] = WeakKeyDictionary()


def gaussians(reference: Reference) -> Gaussians:
    """Fit the Gaussians of a reference, once."""
    if reference not in _FITTED:
        _FITTED[reference] = _fit(reference)
    return _FITTED[reference]


def _fit(reference: Reference) -> Gaussians:
    values, vectors = np.linalg.eigh(reference.within_covariance)
    cut = max(reference.noise, float(values[-1]) * reference.width * float(np.finfo(np.float64).eps))
    kept = values > cut
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    total = reference.total_covariance
    # In whitened coordinates the background covariance is 1 + between-class: one rotation makes both diagonal.
    inside = whitening.T @ total @ whitening
    spread, rotation = np.linalg.eigh((inside + inside.T) / 2)
    basis = whitening @ rotation
    precise = values[kept].size > 0 and float(values[-1] / values[kept].min()) > SINGLE_LIMIT
    dtype = np.float64 if precise else np.float32
    outside, outside_vectors = np.linalg.eigh(total)
    background_basis = None
    if int((outside > cut).sum()) > int(kept.sum()):
        usable = outside > cut
        background_basis = Right.of((outside_vectors[:, usable] / np.sqrt(outside[usable])).astype(dtype))
    means = (reference.class_means - reference.mean) @ basis
    return Gaussians(
        origin=reference.mean32,
        basis=Right.of(basis.astype(dtype)),
        doubled_means=Right.of((2 * means.T).astype(dtype)),
        mean_lengths=np.square(means).sum(axis=1).astype(dtype),
        background=(1 / np.maximum(spread, 1.0)).astype(dtype),
        background_basis=background_basis,
        rank=int(kept.sum()),
    )


def _notes(fitted: Gaussians, reference: Reference) -> tuple[str, ...]:
    missing = reference.width - fitted.rank
    return (
        (f"pseudo-inverse: {missing} of {reference.width} directions have no within-class variance",) if missing else ()
    )


@dataclass(frozen=True)
class Mahalanobis(Detector):
    """MDS (Lee et al. 2018): -min_c (f - mu_c)^T S^-1 (f - mu_c), S the pooled within-class covariance divided by n.

    As OpenOOD, in float64 statistics (OpenOOD fits in float32 through scikit-learn). A singular S is inverted by the
    pseudo-inverse. pytorch-ood does not divide S by n and halves the result: the same order where its 1e-6 on the
    diagonal does not matter.
    """

    name = "mds"
    evidence = Evidence(
        "-min_c (f - mu_c)^T S^-1 (f - mu_c), S the shared covariance", "Lee et al., NeurIPS 2018",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(features=True, fitted_on=("reference",))

    def _fit(self, inputs: Inputs) -> Learnt:
        reference = inputs.the_reference()
        fitted = gaussians(reference)

        def rule(rows: Rows) -> Any:
            return -np.maximum(fitted.lengths(rows)[0] + fitted.class_part(rows), 0)

        return Learnt(rule, "reference", _notes(fitted, reference))


@dataclass(frozen=True)
class RelativeMahalanobis(Detector):
    """RMDS (Ren et al. 2021): MDS less the squared Mahalanobis distance to the mean of all features, negated.

    The background covariance is that of all features around their mean, divided by n.
    """

    name = "rmds"
    evidence = Evidence(
        "(f - mu)^T S_0^-1 (f - mu) - min_c (f - mu_c)^T S^-1 (f - mu_c)", "Ren et al., 2021",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, fitted_on=("reference",))

    def _fit(self, inputs: Inputs) -> Learnt:
        reference = inputs.the_reference()
        fitted = gaussians(reference)

        def rule(rows: Rows) -> Any:
            plain, beyond = fitted.lengths(rows)
            if fitted.background_basis is None:
                return -(beyond + fitted.class_part(rows))
            whole = rows.product(fitted.background_basis, minus=fitted.origin)
            return row_sum(np.square(whole)) - plain - fitted.class_part(rows)

        return Learnt(rule, "reference", _notes(fitted, reference))


@dataclass(frozen=True)
class UnitMahalanobis(Detector):
    """Mahalanobis++ (Mueller and Hein 2025): MDS of features at unit length, in the statistics and in the scored rows.

    Class means and the shared covariance are of unit rows, which a reference that was extracted with ``--arrays unit``
    (or of a zero-shot model, or given as arrays) holds.
    """

    name = "mds++"
    evidence = Evidence(
        "-min_c (u - mu_c)^T S^-1 (u - mu_c), u = f / |f|, mu_c and S of unit rows", "Mueller and Hein, ICML 2025",
        "the formula, row by row", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(features=True, fitted_on=("reference",), unit_sums=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        return _on_unit_rows(Mahalanobis(), inputs)


@dataclass(frozen=True)
class RelativeUnitMahalanobis(Detector):
    """RMDS of features at unit length (Mueller and Hein 2025); statistics as for ``mds++``."""

    name = "rmds++"
    evidence = Evidence(
        "(u - mu)^T S_0^-1 (u - mu) - min_c (u - mu_c)^T S^-1 (u - mu_c), u = f / |f|", "Mueller and Hein, ICML 2025",
        "the formula, row by row", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, fitted_on=("reference",), unit_sums=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        return _on_unit_rows(RelativeMahalanobis(), inputs)


def _on_unit_rows(detector: Mahalanobis | RelativeMahalanobis, inputs: Inputs) -> Learnt:
    learnt = detector._fit(replace(inputs, reference=inputs.the_reference().with_unit_sums()))
    return replace(learnt, rule=lambda rows: learnt.rule(rows.of_unit_length()))


DETECTORS = (Mahalanobis, RelativeMahalanobis, UnitMahalanobis, RelativeUnitMahalanobis)
