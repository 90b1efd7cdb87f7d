"""Likelihoods: the regret of predictive normalised maximum likelihood, and Gaussians of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.mahalanobis import gaussians
from analyze.detectors.products import Right, multiply
from analyze.detectors.reference import Reference
from analyze.detectors.rows import TILE, Rows, logsumexp, row_sum
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

FULL_LIMIT = 1 << 30
"""Most bytes that the covariances of a full Gaussian a class may take."""


@dataclass(frozen=True)
class NormalizedLikelihood(Detector):
    """pNML (Bibas et al. 2021): minus the regret, log sum_c p_c / (p_c + (1 - p_c) p_c^g), range [-log C, 0].

    g = x / (1 + x), x = u^T (U^T U)^+ u for features u of unit length and the training set's U; p is the softmax of
    the head on u. U^T U comes from the bank, scaled to the size of the training set. pytorch-ood divides by log C: the
    same order.
    """

    name = "pnml"
    evidence = Evidence(
        "-log sum_c p_c / (p_c + (1 - p_c) p_c^g), g the leverage of f", "Bibas, Feder and Hassner, NeurIPS 2021",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(features=True, head=True, fitted_on=("bank",))

    def _fit(self, inputs: Inputs) -> Learnt:
        reference, head = inputs.the_reference(), inputs.the_head()
        unit = reference.bank_unit
        gram = np.zeros((reference.width, reference.width))
        for start in range(0, len(unit), TILE):
            block = unit[start : start + TILE].astype(np.float64)
            gram += block.T @ (block * reference.bank_weight[start : start + TILE, None])
        values, vectors = np.linalg.eigh(gram * reference.n)
        # features are float32: directions beyond its precision are directions without data
        kept = values > values[-1] * reference.width * float(np.finfo(np.float32).eps)
        basis = Right.of((vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32))

        def rule(rows: Rows) -> Any:
            queries = rows.of_unit_length()
            x = row_sum(np.square(queries.product(basis)))
            g = (x / (np.float32(1) + x))[:, None]
            softmax = Rows(None, queries.product(head.columns) + head.bias)
            p = np.maximum(softmax.probabilities, np.float32(1e-12))
            other = np.where(p > 0.5, (softmax.rest / (np.float32(1) + softmax.rest))[:, None], np.float32(1) - p)
            # p / (p + (1 - p) p^g) with p divided out
            return -np.log(row_sum(1 / (1 + other * np.exp((g - 1) * np.log(p)))))

        return Learnt(rule, "bank")


@dataclass(frozen=True)
class GaussianMixture(Detector):
    """Log-likelihood of one Gaussian a class, weighted by the classes' frequencies.

    Attributes
    ----------
    covariance
        ``full``: one covariance a class, from the bank's rows of it (pytorch-ood's GMM); needs 8 C D^2 bytes, refused
        beyond 1 GiB. ``tied``: the pooled covariance of MDS, from sums over the training set.
    reg
        Added to the diagonal of a full covariance.
    """

    covariance: str = "full"
    reg: float = 1e-6
    name = "gmm"
    evidence = Evidence(
        "log sum_c pi_c N(f; mu_c, S_c)", "Lee et al., NeurIPS 2018; pytorch-ood",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, fitted_on=("reference",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"reg": (1e-6, 1e-4, 1e-2)}

    def __post_init__(self) -> None:
        check_range(self.name, "reg", self.reg, 0, float("inf"), open_ends=False)
        if self.covariance not in ("full", "tied"):
            raise UserError(f"gmm: covariance={self.covariance!r} must be 'full' or 'tied'")

    def missing(self, *, reference: bool, bank: bool, head: bool, validation: bool, negatives: bool) -> str:
        """As for every detector; full covariances need the bank's rows."""
        if self.covariance == "full" and not bank:
            return "needs a reference store of the training set with its bank (or covariance='tied')"
        return super().missing(reference=reference, bank=bank, head=head, validation=validation, negatives=negatives)

    def _fit(self, inputs: Inputs) -> Learnt:
        reference = inputs.the_reference()
        share = reference.class_count[reference.seen] / reference.n
        if self.covariance == "tied":
            return self._tied(reference, share)
        size = 8 * len(reference.seen) * reference.width**2
        if size > FULL_LIMIT:
            raise UserError(
                f"gmm: {len(reference.seen)} full covariances of width {reference.width} take {size / 2**30:.1f} GiB;"
                " use covariance='tied'"
            )
        factors, means, constants = [], [], []
        for c, part in zip(reference.seen, share, strict=True):
            rows = reference.bank_features[reference.bank_labels == c].astype(np.float64)
            mean = rows.mean(axis=0)
            spread = (rows - mean).T @ (rows - mean) / len(rows) + self.reg * np.eye(reference.width)
            try:
                factor = np.linalg.cholesky(spread)
            except np.linalg.LinAlgError as error:
                raise UserError(
                    f"gmm: the covariance of class {c} is singular ({counted(len(rows), 'row')}); raise reg={self.reg}"
                ) from error
            factors.append(Right.of(solve_triangular(factor, np.eye(reference.width), lower=True).T))
            means.append(mean)
            constants.append(np.log(part) - np.log(np.diag(factor)).sum() - reference.width / 2 * np.log(2 * np.pi))

        def rule(rows: Rows) -> Any:
            f = rows.features.astype(np.float64)
            likelihood = np.empty((len(f), len(factors)))
            for i, (factor, mean, constant) in enumerate(zip(factors, means, constants, strict=True)):
                likelihood[:, i] = constant - row_sum(np.square(multiply(f - mean, factor))) / 2
            return logsumexp(likelihood)

        return Learnt(rule, "bank")

    def _tied(self, reference: Reference, share: NDArray[np.float64]) -> Learnt:
        fitted = gaussians(reference)
        spread = np.linalg.eigvalsh(reference.within_covariance)[-fitted.rank :]
        constant = -0.5 * float(np.log(spread).sum()) - fitted.rank / 2 * float(np.log(2 * np.pi))
        offsets = (np.log(share) - fitted.mean_lengths / 2).astype(np.float32)

        def rule(rows: Rows) -> Any:
            y = fitted.coordinates(rows)
            exponents = multiply(y, fitted.doubled_means) / 2 + offsets
            return constant + logsumexp(exponents) - row_sum(np.square(y)) / 2

        return Learnt(rule, "reference")


DETECTORS = (NormalizedLikelihood, GaussianMixture)
