"""GradNorm without a gradient: the norm has a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analyze.detectors.base import Detector, Inputs, Learnt, Needs
from analyze.detectors.rows import Rows
from analyze.metrics.spec import INFINITY, Evidence


@dataclass(frozen=True)
class GradNorm(Detector):
    """GradNorm (Huang et al. 2021): L1 norm of the gradient, by the head's weights, of -sum_c log p_c.

    That gradient is the outer product of f and C p - 1, so its norm is |f|_1 sum_c |C p_c - 1|: as OpenOOD (head
    weights only, targets of ones). With targets of 1/C, as other codes have them, it is smaller by the factor C.
    """

    name = "gradnorm"
    evidence = Evidence(
        "|f|_1 sum_c |C p_c - 1|", "Huang, Geng and Li, NeurIPS 2021",
        "the formula, row by row; pytorch-ood's gradient by autograd",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, INFINITY)
    needs = Needs(logits=True, features=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        def rule(rows: Rows) -> Any:
            return rows.absolute_sum * rows.deviation

        return Learnt(rule)


DETECTORS = (GradNorm,)
