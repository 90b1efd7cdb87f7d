"""An OOD detector of one's own: what it needs, and a score of rows, higher for in-distribution ones.

    analyze ood CACHE --plugins examples/own_detector.py --detectors top-two,msp -o results.parquet

Fields are hyper-parameters. ``inputs`` has the head, the reference and the validation rows that ``Needs`` asked for.
"""

from dataclasses import dataclass

import numpy as np

from closerlook.plugins import Detector, Inputs, Learnt, Needs, Rows


@dataclass(frozen=True)
class TopTwo(Detector):
    """Largest logit less ``weight`` times the second largest."""

    weight: float = 1.0
    name = "top-two"
    needs = Needs(logits=True)

    def _fit(self, inputs: Inputs) -> Learnt:
        def rule(rows: Rows) -> np.ndarray:
            second, first = np.partition(rows.logits, -2, axis=1)[:, -2:].T
            return first - self.weight * second

        return Learnt(rule)


DETECTORS = (TopTwo,)
