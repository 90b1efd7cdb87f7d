"""DICE: the head without the weights that contribute little on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.products import Right
from analyze.detectors.rows import Rows, logsumexp
from analyze.metrics.spec import Evidence


@dataclass(frozen=True)
class Dice(Detector):
    """DICE (Sun & Li 2022): energy of the head with only the weights whose mean contribution is large.

    The contribution of a weight is the training mean of its feature times the weight; those at or under the percentile
    of all C D contributions are set to zero. One product a tile, where OpenOOD and pytorch-ood form n C D terms.

    Attributes
    ----------
    percentile
        In percent, between 0 and 100: 90 in OpenOOD and the default of the authors' layer. ``paper``: 70, as the
        authors' script runs ImageNet with a ResNet-50.
    """

    percentile: float = 90.0
    name = "dice"
    evidence = Evidence(
        "lse((W * M) f + b), M keeps the weights of largest mean contribution", "Sun and Li, ECCV 2022",
        "the formula, row by row; pytorch-ood", "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    needs = Needs(features=True, head=True, fitted_on=("reference",))
    paper: ClassVar[dict[str, Any]] = {"percentile": 70.0}
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"percentile": (10, 30, 50, 70, 90)}

    def __post_init__(self) -> None:
        check_range(self.name, "percentile", self.percentile, 0, 100)

    def _fit(self, inputs: Inputs) -> Learnt:
        head = inputs.the_head()
        contribution = inputs.the_reference().mean * head.weight.astype(np.float64)
        kept = contribution > np.percentile(contribution, self.percentile)
        columns = Right.of(np.where(kept, head.weight, np.float32(0)).T)

        def rule(rows: Rows) -> Any:
            return logsumexp(rows.product(columns), head.bias)

        return Learnt(rule, "reference")


DETECTORS = (Dice,)
