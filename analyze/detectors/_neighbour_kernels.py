"""Compiled inner loops of detectors of neighbours: a running list of the k largest, how far neighbourhoods reach."""

from __future__ import annotations

from typing import Any

from numba import int32, prange

from analyze.kernels.keeping import compiled

_STRETCH = 64


@compiled(error_model="python", cache=True, nogil=True)
def _above(row: Any, weights: Any, limit: Any) -> Any:
    """Count products over a limit: a loop without a branch, many values an instruction."""
    found = int32(0)
    for j in range(row.size):
        found += int32(row[j] * weights[j] > limit)
    return found


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def update_largest(similarity: Any, weights: Any, first: int, values: Any, places: Any) -> None:
    """Put a block of similarities (columns ``first`` ...) times weights into each row's min-heap of its k largest.

    Of equal similarities the earlier column stays. Most stretches hold nothing larger than the least of the heap.
    """
    k, columns = values.shape[1], similarity.shape[1]
    for row in prange(similarity.shape[0]):
        heap, where, given = values[row], places[row], similarity[row]
        least = heap[0]
        for start in range(0, columns, _STRETCH):
            stop = min(columns, start + _STRETCH)
            if _above(given[start:stop], weights[start:stop], least) == 0:
                continue
            for column in range(start, stop):
                value = given[column] * weights[column]
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


@compiled(error_model="python", cache=True, nogil=True)
def _reached(distances: Any, limits: Any) -> Any:
    """Count distances that are at most their column's limit."""
    found = int32(0)
    for j in range(distances.size):
        found += int32(limits[j] >= distances[j])
    return found


@compiled(error_model="python", cache=True, parallel=True, nogil=True)
def reach_steps(distance: Any, grid: Any, needed: int, step: Any) -> None:
    """For each row the first step at which as many columns as needed are reached, the number of steps where none is.

    ``grid`` (steps, columns) holds each column's distances in ascending order: a column is reached at a step whose
    distance is not below the row's.
    """
    for row in prange(distance.shape[0]):
        low, high = 0, grid.shape[0]
        while low < high:
            middle = (low + high) // 2
            if _reached(distance[row], grid[middle]) >= needed:
                high = middle
            else:
                low = middle + 1
        step[row] = low
