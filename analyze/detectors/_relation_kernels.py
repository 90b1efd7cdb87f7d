"""Compiled inner loops of Relation: pairs that agree enough, and sums over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, prange

from analyze.kernels.fastmath import FAST
from analyze.kernels.keeping import compiled

_CHUNK = 64


@compiled(fastmath=FAST)
def _dot(first: Any, second: Any) -> Any:
    total = float32(0.0)
    for j in range(first.size):
        total += first[j] * second[j]
    return total


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def find_pairs(
    given: Any, bank: Any, starts: Any, listed: Any, weights: Any, limits: Any,
    columns: Any, agreements: Any, counts: Any,
) -> None:  # fmt: skip
    """Find the bank's rows whose inner product with a row exceeds ``least``, in order, as many as there is room for.

    Only those are computed whose part over entries above ``small``, from the lists of the classes, exceeds ``part``;
    ``limits`` holds ``small``, ``part`` and ``least``.
    """
    small, part, least = limits[0], limits[1], limits[2]
    n, classes = given.shape
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        sums, touched = np.zeros(bank.shape[0], np.float32), np.empty(bank.shape[0], np.int32)
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            number = 0
            for c in range(classes):
                if not given[i, c] > small:
                    continue
                for entry in range(starts[c], starts[c + 1]):
                    row = listed[entry]
                    if sums[row] == 0:
                        touched[number] = row
                        number += 1
                    sums[row] += given[i, c] * weights[entry]
            near = 0
            for place in range(number):
                row = touched[place]
                if sums[row] > part:
                    touched[near] = row
                    near += 1
                sums[row] = 0
            found = 0
            for row in np.sort(touched[:near]):
                agreement = _dot(given[i], bank[row])
                if agreement > least:
                    if found < columns.shape[1]:
                        columns[i, found] = row
                        agreements[i, found] = agreement
                    found += 1
            counts[i] = found


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def add_relations(
    cosine: Any, first: int, columns: Any, agreements: Any, counts: Any, done: Any, threshold: float, power: float,
    total: Any,
) -> None:  # fmt: skip
    """Add ``(max(cosine, 0) agreement) ** power`` of a row's pairs in a block of columns, in float64.

    ``done`` counts the pairs of earlier blocks.
    """
    for row in prange(cosine.shape[0]):
        place, stop = done[row], first + cosine.shape[1]
        while place < counts[row] and columns[row, place] < stop:
            value = cosine[row, columns[row, place] - first]
            relation = value * agreements[row, place]
            if value > 0 and relation > threshold:
                total[row] += relation if power == 1.0 else relation**power
            place += 1
        done[row] = place


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def add_all_relations(cosine: Any, agreement: Any, threshold: float, power: float, total: Any) -> None:
    """Add ``(max(cosine, 0) agreement) ** power`` where the product exceeds the threshold, row by row, in float64."""
    for row in prange(cosine.shape[0]):
        added = 0.0
        for column in range(cosine.shape[1]):
            relation = cosine[row, column] * agreement[row, column]
            if cosine[row, column] > 0 and relation > threshold:
                added += relation if power == 1.0 else relation**power
        total[row] += added
