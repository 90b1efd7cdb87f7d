"""Compiled inner loops of the neighbour detectors: a running list of the k largest, and a thresholded sum."""

from __future__ import annotations

from typing import Any

from numba import int32, prange

from analyze.kernels.keeping import compiled

_STRETCH = 64


@compiled(error_model="python", cache=True, nogil=True)
def _above(row: Any, limit: Any) -> Any:
    """Count values over a limit: a loop without a branch, many values an instruction."""
    found = int32(0)
    for j in range(row.size):
        found += int32(row[j] > limit)
    return found


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def update_largest(similarity: Any, first: int, values: Any, places: Any) -> None:
    """Put a block of similarities (rows, columns ``first`` ...) into each row's min-heap of its k largest.

    Of equal similarities the earlier column stays. Most stretches hold nothing larger than the least of the heap.
    """
    k, columns = values.shape[1], similarity.shape[1]
    for row in prange(similarity.shape[0]):
        heap, where, given = values[row], places[row], similarity[row]
        least = heap[0]
        for start in range(0, columns, _STRETCH):
            stop = min(columns, start + _STRETCH)
            if _above(given[start:stop], least) == 0:
                continue
            for column in range(start, stop):
                value = given[column]
                if not value > least:  # so that NaN is never kept
                    continue
                hole = 0
                while True:
                    child = 2 * hole + 1
                    if child >= k:
                        break
                    if child + 1 < k and heap[child + 1] < heap[child]:
                        child += 1
                    if heap[child] >= value:
                        break
                    heap[hole] = heap[child]
                    where[hole] = where[child]
                    hole = child
                heap[hole] = value
                where[hole] = first + column
                least = heap[0]


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def add_relations(cosine: Any, agreement: Any, threshold: float, power: float, total: Any) -> None:
    """Add ``(max(cosine, 0) agreement) ** power`` where the product exceeds the threshold, row by row, in float64."""
    for row in prange(cosine.shape[0]):
        added = 0.0
        for column in range(cosine.shape[1]):
            relation = cosine[row, column] * agreement[row, column]
            if cosine[row, column] > 0 and relation > threshold:
                added += relation if power == 1.0 else relation**power
        total[row] += added


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def reach_positions(distance: Any, grid: Any, position: Any) -> None:
    """For each pair the first place in the reference's ascending grid of distances that is not below the pair's."""
    for row in prange(distance.shape[0]):
        for column in range(distance.shape[1]):
            wanted = distance[row, column]
            low, high = 0, grid.shape[1]
            while low < high:
                middle = (low + high) // 2
                if grid[column, middle] >= wanted:
                    high = middle
                else:
                    low = middle + 1
            position[row, column] = low
