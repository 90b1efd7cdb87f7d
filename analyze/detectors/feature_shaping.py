"""Detectors that clip, prune or scale the features, send them through the head and take the energy."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.products import multiply
from analyze.detectors.rows import Float32, Rows, logsumexp, row_sum, unit_of
from analyze.metrics.spec import Evidence
from closerlook_common.errors import UserError

_PERCENTILES: dict[str, tuple[Any, ...]] = {"percentile": (65, 70, 75, 80, 85, 90, 95)}
_LARGEST_EXPONENT = np.float32(80)


def _fitting_features(inputs: Inputs, name: str) -> tuple[NDArray[Any], str]:
    """Return in-distribution features: validation rows where there are any, else the bank; and which."""
    rows = inputs.validation
    if rows is not None and rows.features is not None:
        values, place = np.asarray(rows.features), "validation"
        return (unit_of(values) if inputs.unit else values), place
    if inputs.reference is None or not len(inputs.reference.bank_labels):
        raise UserError(f"{name} needs features of in-distribution validation rows, or a reference with a bank")
    return inputs.reference.bank_features, "bank"


@dataclass(frozen=True)
class ReAct(Detector):
    """ReAct (Sun et al. 2021): energy of W min(f, c) + b, c a percentile of *all* entries of in-distribution features.

    Fitted on validation features as OpenOOD (GEN's code takes the 99th percentile of training features).

    Attributes
    ----------
    percentile
        In percent, between 0 and 100. 90 in OpenOOD and in the authors' ``compute_threshold.py``.
    """

    percentile: float = 90.0
    name = "react"
    evidence = Evidence(
        "lse(W min(f, c) + b), c a percentile of all features", "Sun et al., NeurIPS 2021",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, head=True, fitted_on=("validation", "bank"))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"percentile": (85, 90, 95, 99)}

    def __post_init__(self) -> None:
        check_range(self.name, "percentile", self.percentile, 0, 100)

    def _fit(self, inputs: Inputs) -> Learnt:
        values, place = _fitting_features(inputs, self.name)
        limit = np.float32(np.percentile(values.astype(np.float32, copy=False), self.percentile))
        head = inputs.the_head()
        return Learnt(
            lambda rows: logsumexp(multiply(np.minimum(rows.features, limit), head.columns), head.bias), place
        )


@dataclass(frozen=True)
class RectifiedActivation(Detector):
    """VRA (Xu et al. 2023) as OpenOOD has it: energy after clipping the features to [low, high].

    The limits are percentiles of all entries. The paper sets entries below the lower limit to *zero*
    (``below="zero"``); its code and pytorch-ood take percentiles of each dimension of its own.

    Attributes
    ----------
    low, high
        Percentiles in percent: 10 and 90 in OpenOOD. ``paper``: 60 and 95, which the authors' read-me gives for
        CIFAR-100 (60 and 90 for CIFAR-10); for ImageNet it gives values, 0.5 and 1 for a ResNet-50, that are of no use
        to another network's features.
    below
        What becomes of entries under the lower limit: ``clip`` or ``zero``.
    """

    low: float = 10.0
    high: float = 90.0
    below: str = "clip"
    name = "vra"
    evidence = Evidence(
        "lse(W clip(f, low, high) + b)", "Xu et al., NeurIPS 2023",
        "the formula, row by row; pytorch-ood in one dimension", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, head=True, fitted_on=("validation", "bank"))
    paper: ClassVar[dict[str, Any]] = {"low": 60.0, "high": 95.0, "below": "zero"}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"low": (1, 5, 10, 15), "high": (85, 90, 95, 99)}

    def __post_init__(self) -> None:
        check_range(self.name, "low", self.low, 0, 100, open_ends=False)
        check_range(self.name, "high", self.high, self.low, 100, open_ends=False)
        if self.below not in ("clip", "zero"):
            raise UserError(f"vra: below={self.below!r} must be 'clip' or 'zero'")

    def _fit(self, inputs: Inputs) -> Learnt:
        values, place = _fitting_features(inputs, self.name)
        low, high = (np.float32(v) for v in np.percentile(values.astype(np.float32, copy=False), (self.low, self.high)))
        head, zero = inputs.the_head(), self.below == "zero"

        def rule(rows: Rows) -> Any:
            f = np.minimum(rows.features, high)
            f = np.where(f < low, np.float32(0), f) if zero else np.maximum(f, low)
            return logsumexp(multiply(f, head.columns), head.bias)

        return Learnt(rule, place)


def kept_count(width: int, percentile: float) -> int:
    """Return how many entries are left when ``percentile`` percent of ``width`` are pruned (at least one)."""
    return max(1, width - int(np.round(width * percentile / 100)))


def top_mask(values: Float32, k: int) -> NDArray[np.bool_]:
    """Mark the k largest entries of each row; of equal ones the first."""
    n = values.shape[1]
    if k >= n:
        return np.ones(values.shape, np.bool_)
    limit = np.partition(values, n - k, axis=1)[:, n - k, None]
    above = values > limit
    equal = values == limit
    places = np.cumsum(equal, axis=1, dtype=np.int32) <= k - above.sum(axis=1, keepdims=True)
    return np.asarray(above | (equal & places))


def top_sum(values: Float32, k: int) -> Float32:
    """Sum the k largest entries of each row (in order of size: equal entries cannot matter)."""
    n = values.shape[1]
    largest = np.partition(values, n - k, axis=1)[:, n - k :] if k < n else values.copy()
    largest.sort(axis=1)
    return np.asarray(row_sum(largest))


@dataclass(frozen=True)
class _ActivationShaping(Detector):
    """What the three forms of ASH (Djurisic et al. 2023) share, on pooled features.

    Attributes
    ----------
    percentile
        Share of each row's entries that is pruned, in percent: 90 in OpenOOD (for its form B), and for S in the
        authors' ImageNet configuration.
    """

    percentile: float = 90.0
    needs = Needs(features=True, head=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = _PERCENTILES

    def __post_init__(self) -> None:
        check_range(self.name, "percentile", self.percentile, 0, 100)

    @abstractmethod
    def _shape(self, features: Float32, kept: NDArray[np.bool_], k: int) -> tuple[Float32, Float32 | None]:
        """Return the shaped features, and a factor for each row (None for 1)."""

    def _fit(self, inputs: Inputs) -> Learnt:
        head = inputs.the_head()
        k = kept_count(head.width, self.percentile)

        def rule(rows: Rows) -> Any:
            shaped, factor = self._shape(rows.features, top_mask(rows.features, k), k)
            return logsumexp(multiply(shaped, head.columns), head.bias, factor)

        return Learnt(rule)


@dataclass(frozen=True)
class ActivationShapingP(_ActivationShaping):
    """ASH-P: energy after setting the smallest ``percentile`` percent of each row's features to zero.

    The ``paper`` default, 60, is *not verified*: the authors' code has no ImageNet configuration of P, its function's
    default is 65.
    """

    name = "ash_p"
    evidence = Evidence(
        "lse(W s(f) + b), s sets the smallest percentile of f to 0", "Djurisic et al., ICLR 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
        unverified="the paper's default of 60 %: the authors' code has no ImageNet configuration of ASH-P",
    )  # fmt: skip
    paper: ClassVar[dict[str, Any]] = {"percentile": 60.0}

    def _shape(self, features: Float32, kept: NDArray[np.bool_], k: int) -> tuple[Float32, Float32 | None]:
        return np.where(kept, features, np.float32(0)), None


@dataclass(frozen=True)
class ActivationShapingB(_ActivationShaping):
    """ASH-B: what is kept is set to the row's sum before pruning divided by the number kept (OpenOOD's form).

    The ``paper`` default, 65, is that of the authors' ImageNet experiment (``ash-b@65``).
    """

    name = "ash_b"
    evidence = Evidence(
        "as ASH-P, what is kept set to sum(f) / number kept", "Djurisic et al., ICLR 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    paper: ClassVar[dict[str, Any]] = {"percentile": 65.0}

    def _shape(self, features: Float32, kept: NDArray[np.bool_], k: int) -> tuple[Float32, Float32 | None]:
        return np.where(kept, (row_sum(features) / np.float32(k))[:, None], np.float32(0)), None


@dataclass(frozen=True)
class ActivationShapingS(_ActivationShaping):
    """ASH-S: what is kept is multiplied by exp(s1/s2), the row's sums before and after pruning.

    The exponent is held to at most 80, so that features of mixed sign cannot overflow.
    """

    name = "ash_s"
    evidence = Evidence(
        "as ASH-P, what is kept times exp(sum(f) / sum(kept))", "Djurisic et al., ICLR 2023",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip

    def _shape(self, features: Float32, kept: NDArray[np.bool_], k: int) -> tuple[Float32, Float32 | None]:
        return np.where(kept, features, np.float32(0)), sharpening(features, k)


def sharpening(features: Float32, k: int) -> Float32:
    """Return exp(s1/s2): s1 the sum of a row, s2 the sum of its k largest entries."""
    ratio = row_sum(features) / top_sum(features, k)
    return np.asarray(np.exp(np.minimum(ratio, _LARGEST_EXPONENT)))


@dataclass(frozen=True)
class Scale(Detector):
    """SCALE (Xu et al. 2024): energy of W (f exp(s1/s2)) + b, s2 the sum of the largest (100 - percentile) percent.

    The head is linear, so the logits are scaled around the bias and no product is needed. The exponent is held to at
    most 80.

    Attributes
    ----------
    percentile
        In percent: 85 in OpenOOD, whose configuration the authors' code ships (pytorch-ood: 65).
    """

    percentile: float = 85.0
    name = "scale"
    evidence = Evidence(
        "lse(W f exp(sum(f) / sum(kept)) + b)", "Xu et al., ICLR 2024", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True, features=True, head=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = _PERCENTILES

    def __post_init__(self) -> None:
        check_range(self.name, "percentile", self.percentile, 0, 100)

    def _fit(self, inputs: Inputs) -> Learnt:
        head = inputs.the_head()
        k = kept_count(head.width, self.percentile)

        def rule(rows: Rows) -> Any:
            factor = sharpening(rows.features, k)
            return logsumexp(rows.logits, head.bias, factor, head.bias)

        return Learnt(rule)


@dataclass(frozen=True)
class LogitScaling(Detector):
    """LTS (Djurisic et al. 2025): energy of z (s1/s2)^2, sums of relu(f) and of its largest ``top`` percent.

    A row without a positive feature keeps its logits.

    Attributes
    ----------
    top
        In percent: 5 in pytorch-ood, the only peer that has it; not compared with the paper.
    """

    top: float = 5.0
    name = "lts"
    evidence = Evidence(
        "lse(z (s1 / s2)^2), sums of relu(f) and of its largest top %", "Djurisic et al., 2025",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
        unverified="the formula and its default: compared with pytorch-ood, not with the paper",
    )  # fmt: skip
    uses_level = True
    needs = Needs(logits=True, features=True)

    def __post_init__(self) -> None:
        check_range(self.name, "top", self.top, 0, 100)

    def _fit(self, inputs: Inputs) -> Learnt:
        top = self.top

        def rule(rows: Rows) -> Any:
            positive = np.maximum(rows.features, np.float32(0))
            large = top_sum(positive, kept_count(positive.shape[1], 100 - top))
            ratio = np.where(large > 0, row_sum(positive) / large, np.float32(1))
            return logsumexp(rows.logits, factors=np.square(ratio))

        return Learnt(rule)


DETECTORS = (
    ReAct,
    RectifiedActivation,
    ActivationShapingP,
    ActivationShapingB,
    ActivationShapingS,
    Scale,
    LogitScaling,
)
