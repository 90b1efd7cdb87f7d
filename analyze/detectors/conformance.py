"""CFOOD: from how large a share of neighbourhoods on do enough training rows accept a row as their neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs
from analyze.detectors.products import Right, multiply
from analyze.detectors.rows import TILE, Rows
from analyze.metrics.spec import Evidence
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class NeighbourhoodConformance(Detector):
    """CFOOD: minus the smallest fraction at which at least ``accept`` of the reference rows accept f/|f|.

    A reference row accepts f at fraction q if f is no farther than its own neighbour of rank q m among the m reference
    rows. Fractions come from OpenOOD's grid of 230 values (0.001 to 0.99, finer below), 1 where none suffices: the
    score is as coarse as that grid. Memory and fitting grow with the square of m.

    Attributes
    ----------
    alpha
        Share of the bank that is the reference, in (0, 1]: the first rows of each class in its seeded order. 0.1 of the
        whole training set in OpenOOD.
    accept
        Share of the reference rows that must accept: 0.01 in OpenOOD.
    """

    alpha: float = 0.1
    accept: float = 0.01
    name = "cfood"
    evidence = Evidence(
        "-smallest fraction at which enough reference rows accept f/|f|", "OpenOOD 1.5 (CFOOD)",
        "the definition, row by row", "test_detectors_oracles.py::test_cfood",
    )  # fmt: skip
    limits = (-1.0, 0.0)
    needs = Needs(features=True, fitted_on=("bank",))
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"accept": (0.005, 0.01, 0.02, 0.05)}

    def __post_init__(self) -> None:
        for what, value in (("alpha", self.alpha), ("accept", self.accept)):
            if not 0 < value <= 1:
                raise UserError(f"cfood: {what}={value} must lie in (0, 1]")

    def _fit(self, inputs: Inputs) -> Learnt:
        from analyze.detectors._neighbour_kernels import reach_steps

        reference = inputs.the_reference()
        order = _interleaved(reference.bank_labels)
        m = max(2, round(self.alpha * len(order)))
        if m > len(order):
            raise UserError("cfood needs a bank of at least two rows")
        rows = reference.bank_unit[np.sort(order[:m])]
        fractions = np.concatenate(
            [np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)]
        )
        ranks = np.maximum((fractions * m - 1).astype(np.int64), 0)
        keep = np.concatenate([[True], ranks[1:] > ranks[:-1]])
        fractions, ranks = fractions[keep], np.minimum(ranks[keep] + 1, m - 1)
        columns = Right.of(rows.T)
        grid = np.empty((len(ranks), m), np.float32)
        for start in range(0, m, TILE):
            part = slice(start, start + TILE)
            own = np.sort(_distances(rows[part], columns), axis=1)
            grid[:, part] = own[:, ranks].T
        needed = max(1, int(np.ceil(self.accept * m)))
        steps = np.append(fractions, 1.0).astype(np.float32)

        def rule(scored: Rows) -> Any:
            step = np.empty(len(scored.features), np.int32)
            reach_steps(_distances(scored.of_unit_length().features, columns), grid, needed, step)
            return -steps[step]

        return Learnt(rule, "bank", (f"reference of {counted(m, 'row')}",))


def _distances(left: NDArray[np.float32], right: Right) -> NDArray[np.float32]:
    """Squared distances of unit rows, at least 0, (n, m)."""
    return np.asarray(np.maximum(np.float32(2) - np.float32(2) * multiply(left, right), np.float32(0)))


def _interleaved(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return the order: the first row of every class, then the second of every class ..."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked, side="left")
    return np.asarray(order[np.argsort(rank, kind="stable")])


DETECTORS = (NeighbourhoodConformance,)
