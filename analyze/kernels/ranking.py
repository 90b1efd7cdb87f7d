"""Weighted walks along sorted confidences, for many bootstrap replicates at once.

A row's weights lie side by side, so each row is sorted and looked at once for all replicates. Replicates are
taken 64 at a time, with everything that is known of these 64 lying side by side in one table: loops of a fixed
length over one array, which the compiler turns into vector code without a remainder. Rows lie anywhere in memory,
so their weights are asked for some rows ahead. Counts are float32, exact below 2^24; areas are float32 over a few
groups and float64 over those; sums of real numbers are float64.
"""

from __future__ import annotations

from numba import float32, float64

from analyze.kernels.keeping import compiled

WIDE = 64
AHEAD = 16
_FAST = {"contract", "arcp", "nsz"}
_SMALL = 0xFFFFFFF  # a number held to this mask is not negative, and the compiler knows it


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def load_weights(weights, row, block, into, base):  # type: ignore[no-untyped-def]
    """Copy the weights of a row in a block of replicates, as float32; what lies beyond the last one stays."""
    base = base & _SMALL
    first = (block * WIDE) & _SMALL
    left = weights.shape[1] - first
    if left >= WIDE:
        for r in range(WIDE):
            into[base + r] = float32(weights[row, first + r])
    else:
        for r in range(left):
            into[base + r] = float32(weights[row, first + r])


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def add_weights(weights, row, block, into, base):  # type: ignore[no-untyped-def]
    """Add the weights of a further row."""
    base = base & _SMALL
    first = (block * WIDE) & _SMALL
    for r in range(min(weights.shape[1] - first, WIDE)):
        into[base + r] += float32(weights[row, first + r])


@compiled(nogil=True, cache=True, fastmath={"contract"})
def mean_totals(columns, weights, totals):  # type: ignore[no-untyped-def]
    """Add weight x value of all rows: columns (k, n), totals (k, R), float64."""
    for i in range(weights.shape[0]):
        row = weights[i]
        for c in range(columns.shape[0]):
            total = totals[c]
            value = columns[c, i]
            for r in range(row.size):
                total[r] += value * float64(row[r])


@compiled(nogil=True, cache=True, fastmath={"contract"})
def bin_totals(numbers, values, weights, totals):  # type: ignore[no-untyped-def]
    """Add weight x value of each row to its bin: totals (bins, R) float64."""
    for i in range(numbers.size):
        total = totals[numbers[i]]
        value = float64(values[i])
        row = weights[i]
        for r in range(row.size):
            total[r] += value * float64(row[r])
