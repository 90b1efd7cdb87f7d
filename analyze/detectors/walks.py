"""A tile of rows against a bank: each block of similarities is computed once and shown to every detector that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.products import Right, multiply
from analyze.detectors.rows import Float32, Rows

BLOCK = 2048
"""Rows of the bank in one product: similarities of a tile with so many stay in the cache."""


class Visitor(Protocol):
    """What one detector gathers of a tile."""

    def visit(self, first: int, similarity: Float32) -> None:
        """Take the similarities to the rows of the bank from ``first`` on, (n, b); they are gone afterwards."""


def unit_features(rows: Rows) -> Float32:
    """Return the features at unit length: what most detectors compare with a bank."""
    return rows.of_unit_length().features


@dataclass(frozen=True, eq=False)
class Bank:
    """Rows to be near to, (m, D), as the right side of products; its panels may be float16."""

    rows: Right
    queries: Callable[[Rows], Float32] = unit_features

    @staticmethod
    def of(
        rows: NDArray[np.floating[Any]], queries: Callable[[Rows], Float32] = unit_features, *, half: bool = False
    ) -> Bank:
        """Prepare rows (m, D); ``queries`` gives what they are compared with, (n, D)."""
        return Bank(Right.of(rows.T, half=half), queries)

    def __len__(self) -> int:
        return self.rows.columns

    def blocks(self) -> Iterator[tuple[int, Right]]:
        """Yield the first index and up to ``BLOCK`` rows as float32."""
        width = self.rows.panels.shape[2]
        for first in range(0, len(self.rows.panels), BLOCK // width):
            panels = self.rows.panels[first : first + BLOCK // width].astype(np.float32, copy=False)
            yield first * width, Right(panels, min(self.rows.columns - first * width, len(panels) * width))

    def show(self, rows: Rows, visitors: Sequence[Visitor]) -> None:
        """Show the similarities of a tile to all visitors, a block of the bank at a time."""
        queries = self.queries(rows)
        scratch = np.empty(len(queries) * BLOCK, np.float32)
        for first, block in self.blocks():
            similarity = multiply(queries, block, scratch=scratch)
            for visitor in visitors:
                visitor.visit(first, similarity)


@dataclass(frozen=True, eq=False)
class Walk:
    """That a detector asks for the similarities of rows to a bank.

    Attributes
    ----------
    bank
        Detectors whose walks have the same one share the product.
    begin
        Makes the visitor of a tile.
    """

    bank: Bank
    begin: Callable[[Rows], Visitor]


def walked(rows: Rows, walk: Walk) -> Any:
    """Return the visitor of a walk after it has seen the whole bank.

    The first detector that asks takes along the walks of all others that were announced for the tile (``Rows.walks``).
    """
    found: dict[Walk, Visitor] = rows.once(walk.bank, dict)
    if walk not in found:
        together = [other for other in rows.walks if other.bank is walk.bank and other not in found]
        visitors = {other: other.begin(rows) for other in dict.fromkeys((*together, walk))}
        walk.bank.show(rows, list(visitors.values()))
        found |= visitors
    return found[walk]


class Largest:
    """The k largest similarities of each row, or products of these with a weight of the bank's row.

    Parameters
    ----------
    n
        Rows of the tile.
    k
        How many are kept.
    weights : ndarray of shape (m,)
        Float32.
    """

    def __init__(self, n: int, k: int, weights: Float32) -> None:
        self.weights = weights
        self.values = np.full((n, k), -np.inf, np.float32)
        self.places = np.zeros((n, k), np.int64)

    def visit(self, first: int, similarity: Float32) -> None:
        """Put a block of similarities into each row's list."""
        from analyze.detectors._neighbour_kernels import update_largest

        weights = self.weights[first : first + similarity.shape[1]]
        update_largest(similarity, weights, first, self.values, self.places)

    def sorted(self) -> tuple[Float32, NDArray[np.int64]]:
        """Return the k largest, descending, and their rows of the bank; both (n, k)."""
        order = np.argsort(-self.values, axis=1, kind="stable")
        return np.take_along_axis(self.values, order, axis=1), np.take_along_axis(self.places, order, axis=1)
