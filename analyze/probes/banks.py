"""Labelled rows of features that a probe is fitted on: read in blocks, from memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError

ROWS = 4096
"""Rows of a block."""

MEMORY = 1 << 30
"""Bytes of features, as float64, that are kept in memory; more are read again on every pass."""

Read = Callable[[int, int], NDArray[np.floating]]
"""First row and the row after the last -> (b, D) features as they are stored."""


def unit_rows(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows scaled to unit Euclidean length; a row of zeros stays one."""
    scaled: NDArray[np.float64] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return scaled


@dataclass(frozen=True, eq=False)
class Bank:
    """Labelled rows.

    Attributes
    ----------
    read
        Reads rows of the whole array that the bank is a part of.
    rows
        (n,) increasing places of the bank's rows in it.
    labels
        (n,) their classes, 0 to ``n_classes - 1``.
    n_classes
        C.
    unit
        Whether features are scaled to unit length.
    """

    read: Read
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    n_classes: int
    unit: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, at_most: int = ROWS) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Yield (b, D) float64 features and (b,) labels, in order; ``at_most`` rows at a time."""
        begin = 0
        while begin < len(self.rows):
            first = int(self.rows[begin])
            end = int(np.searchsorted(self.rows, first + at_most))
            last = int(self.rows[end - 1]) + 1
            block = np.asarray(self.read(first, last))
            if end - begin < last - first:
                block = block[self.rows[begin:end] - first]
            values = block.astype(np.float64, copy=False)
            yield unit_rows(values) if self.unit else values, self.labels[begin:end]
            begin = end

    def part(self, chosen: NDArray[np.bool_]) -> Bank:
        """Return the bank of some of the rows."""
        return Bank(self.read, self.rows[chosen], self.labels[chosen], self.n_classes, self.unit)

    def in_memory(self, at_most: int = MEMORY) -> Bank:
        """Return a bank that holds its rows in memory as float64, or itself where they take more bytes than that."""
        if not len(self) or len(self) * self.width * 8 > at_most:
            return self
        values = np.concatenate([block for block, _ in self.blocks()])
        return bank_of(values, self.labels, self.n_classes)

    @property
    def width(self) -> int:
        """D."""
        first = int(self.rows[0])
        return int(self.read(first, first + 1).shape[1])


def bank_of(features: NDArray[np.floating], labels: NDArray[np.integer], n_classes: int, *, unit: bool = False) -> Bank:
    """Return a bank of arrays.

    Parameters
    ----------
    features : ndarray of shape (n, D)
    labels : ndarray of shape (n,)
        Classes; rows with a negative label or a value that is not finite are left out.
    n_classes
        C.
    unit
        Whether features are scaled to unit length.

    Raises
    ------
    UserError
        A label is not a class, or no row is left.
    """
    classes: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
    rows = np.flatnonzero((classes >= 0) & np.isfinite(features).all(axis=1))
    if not len(rows):
        raise UserError("a probe needs labelled rows of features, and there are none")
    if int(classes.max()) >= n_classes:
        raise UserError(f"label {int(classes.max())} is not one of {n_classes} classes")
    return Bank(lambda start, stop: features[start:stop], rows, classes[rows], n_classes, unit)


def held_out_rows(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Mark a share of the rows of each class, drawn by a seed.

    Parameters
    ----------
    labels : ndarray of shape (n,)
    share
        Of each class, rounded; at least one row of every class that has two, and never all of them.
    seed
        The same labels and seed give the same rows.
    """
    held = np.zeros(len(labels), dtype=bool)
    for places in _shuffled(labels, seed, "held out"):
        count = min(max(1, round(share * len(places))), len(places) - 1)
        held[places[:count]] = True
    return held


def shot_rows(labels: NDArray[np.int64], allowed: NDArray[np.bool_], shots: int, seed: int) -> NDArray[np.bool_]:
    """Mark ``shots`` rows of each class among those allowed, drawn by a seed; all of a class that has fewer.

    Rows of fewer shots are among those of more, for one seed.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    places = np.flatnonzero(allowed)
    for own in _shuffled(labels[places], seed, "shots"):
        chosen[places[own[:shots]]] = True
    return chosen


def _shuffled(labels: NDArray[np.int64], seed: int, purpose: str) -> Iterator[NDArray[np.int64]]:
    """Yield the places of each class's rows in an order that class, seed and purpose decide."""
    order = np.argsort(labels, kind="stable")
    present, first = np.unique(labels[order], return_index=True)
    bounds = [*first.tolist(), len(order)]
    for index, label in enumerate(present.tolist()):
        rng = np.random.default_rng([seed, label, *purpose.encode()])
        yield rng.permutation(order[bounds[index] : bounds[index + 1]])
