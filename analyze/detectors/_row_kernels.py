"""Compiled passes over a tile: each reads a row once (or from the nearest cache) and leaves a few numbers of it.

Sums are taken in lanes whose order depends on the row's width alone, so no row sees its neighbours, blocks or threads.
A loop takes one sum: with two or more in it LLVM chooses other lanes for a kernel that was just compiled than for one
that was kept, and scores of the first run would differ in their last digits from those of later ones.
numba's cache watches this file only: touch it after a change in ``analyze/kernels/fastmath.py``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numba import float32, int32, prange

from analyze.kernels.fastmath import FAST, exp32
from analyze.kernels.keeping import compiled

_CHUNK = 16
_STRETCH = 128
_over_rows = partial(compiled, cache=True, parallel=True, nogil=True)
_LOWEST = float32(-87.0)


@compiled(fastmath=FAST, forceinline=True)
def _sum(row):  # type: ignore[no-untyped-def]
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    return total


@compiled(fastmath=FAST, forceinline=True)
def _absolute_sum(row):  # type: ignore[no-untyped-def]
    total = row.dtype.type(0)
    for j in range(row.size):
        total += abs(row[j])
    return total


@compiled(fastmath=FAST, forceinline=True)
def _square_sum(row):  # type: ignore[no-untyped-def]
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j] * row[j]
    return total


@compiled(fastmath=FAST, forceinline=True)
def _weighted_square_sum(row, weights):  # type: ignore[no-untyped-def]
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j] * row[j] * weights[j]
    return total


@compiled(forceinline=True)
def _largest(bits, one):  # type: ignore[no-untyped-def]
    """Return the largest of float32 values without NaN, given as their bits; ``one`` is scratch of one int32.

    With the bits below a sign turned around, floats are ordered as whole numbers are, whose maximum LLVM vectorises
    (that of floats it does not, for NaN's sake).
    """
    below, top = int32(0x7FFFFFFF), int32(-0x80000000)
    for j in range(bits.size):
        top = max(top, int32(bits[j] ^ ((bits[j] >> int32(31)) & below)))
    one[0] = top ^ ((top >> int32(31)) & below)
    return one.view(np.float32)[0]


@compiled(forceinline=True)
def _count(row, value):  # type: ignore[no-untyped-def]
    found = int32(0)
    for j in range(row.size):
        found += int32(row[j] == value)
    return found


@compiled()
def _first(row, value):  # type: ignore[no-untyped-def]
    """First place of a value that the row holds, looked for a stretch at a time."""
    start = 0
    while start + _STRETCH < row.size and _count(row[start : start + _STRETCH], value) == 0:
        start += _STRETCH
    while row[start] != value:
        start += 1
    return start


@compiled(fastmath=FAST, forceinline=True)
def _exponentials(row, top, powers):  # type: ignore[no-untyped-def]
    for j in range(row.size):
        powers[j] = exp32(row[j] - top)


@compiled(fastmath=FAST, forceinline=True)
def _weighted(row, top, powers):  # type: ignore[no-untyped-def]
    total = float32(0.0)
    for j in range(row.size):
        total += powers[j] * max(row[j] - top, _LOWEST)
    return total


@compiled(fastmath=FAST, forceinline=True)
def _deviation(powers, scale):  # type: ignore[no-untyped-def]
    total = float32(0.0)
    for j in range(powers.size):
        total += abs(powers[j] * scale - float32(1.0))
    return total


@_over_rows()
def logit_sums(
    logits: Any, powers: Any, keep: bool, predicted: Any, largest: Any, rest: Any, weighted: Any, deviation: Any
) -> None:
    """Statistics of float32 logits (n, C) and their softmax.

    Written are the first largest class, its logit, the sums over the *other* classes of e = exp(z - max z) and of
    e (z - max z), and sum |C p - 1|; and e itself to ``powers`` (n, C) where it is to be kept.
    """
    n, classes = logits.shape
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        e, one = np.empty(classes, np.float32), np.empty(1, np.int32)
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            row = logits[i]
            if math.isnan(_sum(row)):
                predicted[i] = 0
                largest[i] = rest[i] = weighted[i] = deviation[i] = np.nan
                if keep:
                    powers[i] = np.nan
                continue
            top = _largest(row.view(np.int32), one)
            place = _first(row, top)
            _exponentials(row, top, e)
            e[place] = float32(0.0)
            others = _sum(e)
            predicted[i], largest[i], rest[i] = place, top, others
            weighted[i] = _weighted(row, top, e)
            e[place] = float32(1.0)
            deviation[i] = _deviation(e, float32(classes) / (float32(1.0) + others))
            if keep:
                powers[i] = e


@_over_rows()
def feature_sums(values: Any, total: Any, absolute: Any, squares: Any) -> None:
    """Sum, sum of absolute values and sum of squares of each row."""
    for i in prange(values.shape[0]):
        row = values[i]
        total[i], absolute[i], squares[i] = _sum(row), _absolute_sum(row), _square_sum(row)


@_over_rows(fastmath=FAST)
def square_sums(values: Any, stop: int, out: Any) -> None:
    """Sum of squares of the first ``stop`` columns of each row."""
    for i in prange(values.shape[0]):
        total = values.dtype.type(0)
        for j in range(stop):
            total += values[i, j] * values[i, j]
        out[i] = total


@_over_rows()
def weighted_squares(values: Any, weights: Any, plain: Any, weighted: Any) -> None:
    """Sum of squares of each row, and the same with a weight for each column."""
    for i in prange(values.shape[0]):
        plain[i], weighted[i] = _square_sum(values[i]), _weighted_square_sum(values[i], weights)


@_over_rows(fastmath=FAST)
def row_dots(values: Any, table: Any, chosen: Any, out: Any) -> None:
    """Inner product of each row with the row of a table that was chosen for it."""
    for i in prange(values.shape[0]):
        pattern = table[chosen[i]]
        total = values.dtype.type(0)
        for j in range(values.shape[1]):
            total += values[i, j] * pattern[j]
        out[i] = total


@_over_rows(fastmath=FAST)
def gap_sums(logits: Any, largest: Any, table: Any, chosen: Any, out: Any) -> None:
    """Sum over classes of |z - max z| times the entry of the table's row that was chosen for the row."""
    for i in prange(logits.shape[0]):
        weights, top = table[chosen[i]], largest[i]
        total = float32(0.0)
        for j in range(logits.shape[1]):
            total += abs(logits[i, j] - top) * weights[j]
        out[i] = total


@compiled(fastmath=FAST, forceinline=True)
def _less(row, offsets, buffer):  # type: ignore[no-untyped-def]
    for j in range(row.size):
        buffer[j] = row[j] - offsets[j]


@_over_rows()
def largest_less(values: Any, offsets: Any, out: Any) -> None:
    """Largest of a row's values less the columns' offsets, float32; NaN where one is."""
    n, columns = values.shape
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        buffer, one = np.empty(columns, np.float32), np.empty(1, np.int32)
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            _less(values[i], offsets, buffer)
            out[i] = np.nan if math.isnan(_sum(buffer)) else _largest(buffer.view(np.int32), one)


@compiled(fastmath=FAST, forceinline=True)
def _shaped(row, pivots, factor, offsets, buffer):  # type: ignore[no-untyped-def]
    for j in range(row.size):
        buffer[j] = (row[j] - pivots[j]) * factor + offsets[j]


@compiled(fastmath=FAST, forceinline=True)
def _total_power(row, top):  # type: ignore[no-untyped-def]
    total = float32(0.0)
    for j in range(row.size):
        total += exp32(row[j] - top)
    return total


@_over_rows()
def logsumexp_rows(values: Any, pivots: Any, factors: Any, offsets: Any, out: Any) -> None:
    """Log-sum-exp of ((values - the columns' pivots) * the row's factor + the columns' offsets), float32.

    -inf where all entries are, +inf where one is, NaN where one is.
    """
    n, columns = values.shape
    for chunk in prange((n + _CHUNK - 1) // _CHUNK):
        buffer, one = np.empty(columns, np.float32), np.empty(1, np.int32)
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            _shaped(values[i], pivots, factors[i], offsets, buffer)
            if not math.isfinite(_sum(buffer)):
                for j in range(columns):
                    if math.isnan(buffer[j]):
                        buffer[0] = np.nan
                if math.isnan(buffer[0]):
                    out[i] = np.nan
                    continue
            top = _largest(buffer.view(np.int32), one)
            out[i] = top + math.log(_total_power(buffer, top)) if math.isfinite(top) else top
