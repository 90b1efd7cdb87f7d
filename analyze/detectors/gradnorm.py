"""GradNorm without a gradient: the norm has a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analyze.detectors.base import Detector, Inputs, Learnt, Needs
from analyze.detectors.rows import Rows


@dataclass(frozen=True)
class GradNorm(Detector):
    """GradNorm (Huang et al. 2021): L1 norm of the gradient, by the head's weights, of -sum_c log p_c.

    That gradient is the outer product of f and C p - 1, so its norm is |f|_1 sum_c |C p_c - 1|: as OpenOOD (head
    weights only, targets of ones). With targets of 1/C, as other codes have them, it is smaller by the factor C.
    """

    name = "gradnorm"
    needs = Needs(logits=True, features=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        def rule(rows: Rows) -> Any:
            return rows.absolute_sum * rows.deviation

        return Learnt(rule)


DETECTORS = (GradNorm,)
