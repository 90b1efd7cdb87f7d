"""Scores of the logits alone, and the length of the features: nothing of a training set is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from analyze.calibrators.temperature import fit_temperature
from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.rows import Rows, logsumexp, row_sum
from analyze.metrics.spec import INFINITY, Evidence
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class MaximumSoftmax(Detector):
    """Largest softmax probability (Hendrycks & Gimpel 2017). Range (0, 1]; saturates at exactly 1 in float32."""

    name = "msp"
    evidence = Evidence(
        "max_c p_c", "Hendrycks and Gimpel, ICLR 2017", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, 1.0)
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        return Learnt(lambda rows: np.float32(1) / (np.float32(1) + rows.rest))


@dataclass(frozen=True)
class MaximumLogit(Detector):
    """Largest logit (Hendrycks et al. 2022)."""

    name = "mls"
    evidence = Evidence(
        "max_c z_c", "Hendrycks et al., ICML 2022", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        return Learnt(lambda rows: rows.largest)


@dataclass(frozen=True)
class Energy(Detector):
    """Negative free energy T lse(z/T) (Liu et al. 2020).

    Attributes
    ----------
    temperature
        T > 0.
    """

    temperature: float = 1.0
    name = "energy"
    evidence = Evidence(
        "T lse(z / T)", "Liu et al., NeurIPS 2020", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"temperature": (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)}

    def __post_init__(self) -> None:
        check_range(self.name, "temperature", self.temperature, 0, float("inf"))

    def _fit(self, inputs: Inputs) -> Learnt:
        temperature = np.float32(self.temperature)
        if self.temperature == 1:
            return Learnt(lambda rows: rows.logsumexp)
        return Learnt(lambda rows: temperature * logsumexp(rows.logits / temperature))


@dataclass(frozen=True)
class Entropy(Detector):
    """Negative entropy of the softmax, sum p log p, in nats: range [-log C, 0].

    pytorch-ood clips p to [1e-7, 1] first, which adds up to 1.6e-6 a class.
    """

    name = "entropy"
    evidence = Evidence(
        "sum_c p_c log p_c", "Hendrycks and Gimpel, ICLR 2017", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        return Learnt(lambda rows: rows.negative_entropy)


@dataclass(frozen=True)
class Variance(Detector):
    """Variance of the C softmax probabilities around 1/C: higher is more peaked (as in MCM's code)."""

    name = "variance"
    evidence = Evidence(
        "mean_c (p_c - 1/C)^2", "Ming et al., NeurIPS 2022 (MCM's code)", "the formula, row by row",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, 0.25)
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        def rule(rows: Rows) -> Any:
            p = rows.probabilities
            return row_sum(np.square(p - np.float32(1 / p.shape[1]))) / np.float32(p.shape[1])

        return Learnt(rule)


@dataclass(frozen=True)
class Margin(Detector):
    """Largest less second largest softmax probability, range [0, 1]."""

    name = "margin"
    evidence = Evidence(
        "p_(1) - p_(2)", "Hendrycks and Gimpel, ICLR 2017 (softmax scores)", "the formula, row by row",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, 1.0)
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        def rule(rows: Rows) -> Any:
            if rows.logits.shape[1] < 2:
                raise UserError("margin needs at least two classes")
            two = np.partition(rows.logits, -2, axis=1)[:, -2:]
            return -np.expm1(two[:, 0] - two[:, 1]) / (np.float32(1) + rows.rest)

        return Learnt(rule)


@dataclass(frozen=True)
class GeneralizedEntropy(Detector):
    """GEN (Liu et al. 2023): minus the sum over the m largest p of p^gamma (1 - p)^gamma.

    Computed from logits, so that neither p nor 1 - p is rounded away. pytorch-ood takes the *mean*, m = all, and clamps
    p to [1e-7, 1 - 1e-7].

    Attributes
    ----------
    gamma
        Exponent > 0: 0.1 in OpenOOD.
    m
        How many of the largest probabilities count, 100 in OpenOOD; all where there are fewer classes.
    """

    gamma: float = 0.1
    m: int = 100
    name = "gen"
    evidence = Evidence(
        "-sum over the m largest p of p^gamma (1 - p)^gamma", "Liu et al., CVPR 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (-INFINITY, 0.0)
    needs = Needs(logits=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {
        "gamma": (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0),
        "m": (10, 50, 100, 200, 500, 1000),
    }

    def __post_init__(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0, float("inf"))
        check_range(self.name, "m", self.m, 1, float("inf"), open_ends=False)

    def _fit(self, inputs: Inputs) -> Learnt:
        gamma, m = np.float32(self.gamma), self.m

        def rule(rows: Rows) -> Any:
            z = rows.logits
            if m < z.shape[1]:
                z = np.partition(z, z.shape[1] - m, axis=1)[:, -m:]
                z.sort(axis=1)
            below = z - rows.largest[:, None]
            log_total = np.log1p(rows.rest)[:, None]
            p = np.exp(below - log_total)
            # 1 - p of the top class is rest / total; where several classes tie for the top, 1 - p is far from 0 anyway
            other = np.where(below == 0, (rows.rest / (np.float32(1) + rows.rest))[:, None], np.float32(1) - p)
            return -row_sum(np.exp(gamma * (below - log_total)) * np.power(other, gamma))

        return Learnt(rule)


@dataclass(frozen=True)
class TemperatureScaling(Detector):
    """Largest softmax probability of z/T, T fitted on labelled validation rows by their likelihood.

    Attributes
    ----------
    temperature
        Use this T instead of fitting one.
    """

    temperature: float | None = None
    name = "tempscale"
    evidence = Evidence(
        "max_c softmax(z / T)_c, T fitted on validation rows", "Guo et al., ICML 2017", "a scalar search by scipy",
        "test_detectors_oracles.py::test_tempscale",
    )  # fmt: skip
    limits = (0.0, 1.0)
    needs = Needs(logits=True, fitted_on=("validation", "bank"), labels=True)

    def __post_init__(self) -> None:
        if self.temperature is not None:
            check_range(self.name, "temperature", self.temperature, 0, float("inf"))

    def _fit(self, inputs: Inputs) -> Learnt:
        fitted_on = ""
        temperature = self.temperature
        if temperature is None:
            rows = inputs.validation
            if rows is not None and rows.labels is not None and rows.logits is not None:
                logits, labels, fitted_on = rows.logits, rows.labels, "validation"
            elif inputs.reference is not None and len(inputs.reference.bank_labels):
                logits, labels, fitted_on = inputs.reference.bank_logits, inputs.reference.bank_labels, "bank"
            else:
                raise UserError("tempscale needs validation logits with labels")
            known = np.flatnonzero(np.asarray(labels) >= 0)
            if not len(known):
                raise UserError("tempscale needs validation rows with labels")
            temperature = fit_temperature(np.asarray(logits)[known], np.asarray(labels)[known]).temperature
        check_range(self.name, "temperature", temperature, 0, float("inf"))
        beta = np.float32(1 / temperature)

        def rule(rows: Rows) -> Any:
            return np.float32(1) / row_sum(np.exp(beta * (rows.logits - rows.largest[:, None])))

        return Learnt(rule, fitted_on, (f"temperature {temperature:.6g}",))


@dataclass(frozen=True)
class FeatureNorm(Detector):
    """Length of the features.

    Attributes
    ----------
    order
        1 for the sum of absolute values, 2 for the Euclidean length.
    """

    order: int = 2
    name = "feature_norm"
    evidence = Evidence(
        "|f|_2 or |f|_1", "Dhamija et al., NeurIPS 2018", "the formula, row by row",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, INFINITY)
    needs = Needs(features=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"order": (1, 2)}

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise UserError(f"feature_norm: order={self.order} must be 1 or 2")

    def _fit(self, inputs: Inputs) -> Learnt:
        if self.order == 1:
            return Learnt(lambda rows: rows.absolute_sum)
        return Learnt(lambda rows: rows.norm)


DETECTORS = (
    MaximumSoftmax,
    MaximumLogit,
    Energy,
    Entropy,
    GeneralizedEntropy,
    Variance,
    Margin,
    TemperatureScaling,
    FeatureNorm,
)
