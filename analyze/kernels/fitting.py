"""Kernels that look at a set of rows as a whole: moments for fitting a temperature, the classwise table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float64, int64, types
from numba.extending import overload

from analyze.kernels.fastmath import FAST, exp64, float_of_bits, half_to_float
from analyze.kernels.keeping import compiled
from analyze.kernels.rowmath import decode

UNIT = 1 << 40
"""Probabilities are summed in units of 2**-40: whole numbers, exact in any order, good for 8 million rows."""

_STRETCH = 64
_MAGNITUDE = (1 << 63) - 1
_LOWEST_WORD = -(1 << 63)
_LOWEST = -1e5  # used as -inf: exp of it is 0, and its products stay finite


def value(number: Any) -> Any:
    """Half bits or a float -> float64."""
    raise NotImplementedError("runs only inside a compiled kernel")


@overload(value, inline="never")
def _value(number):  # type: ignore[no-untyped-def]
    if number == types.uint16:
        return lambda number: float64(half_to_float(number))
    return lambda number: float64(number)


@compiled(forceinline=True)
def load(row, buffer):  # type: ignore[no-untyped-def]
    """Copy a row as float64 and return its largest value (the row holds no NaN).

    The largest is found among whole numbers that rise with the floats: LLVM leaves a maximum of floats scalar.
    """
    for j in range(row.size):
        buffer[j] = value(row[j])
    words = buffer.view(np.int64)
    best = int64(_LOWEST_WORD)
    for j in range(row.size):
        word = words[j]
        best = max(best, word ^ ((word >> 63) & _MAGNITUDE))
    return float_of_bits(best ^ ((best >> 63) & _MAGNITUDE))


@compiled(fastmath=FAST, forceinline=True)
def exponentials(buffer, best, beta):  # type: ignore[no-untyped-def]
    """Replace logits by exp(beta (logit - best)) and return their sum."""
    total = 0.0
    for j in range(buffer.size):
        e = exp64((buffer[j] - best) * beta)
        buffer[j] = e
        total += e
    return total


@compiled(nogil=True, cache=True)
def suspect_rows(logits, suspects):  # type: ignore[no-untyped-def]
    """Mark rows whose sum is not finite: they hold NaN or an infinity."""
    buffer = np.empty(logits.shape[1], np.float32)
    for i in range(logits.shape[0]):
        suspects[i] = not math.isfinite(decode(logits[i], buffer))


@compiled(nogil=True, cache=True, fastmath=FAST)
def moments_rows(logits, labels, beta, out, start, stop):  # type: ignore[no-untyped-def]
    """Per row: -log p(label) and its first three derivatives in beta, all float64 (softmax of beta * logits)."""
    n = logits.shape[1]
    buffer = np.empty(n, np.float64)
    for i in range(start, stop):
        best = load(logits[i], buffer)
        total, first, second, third = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            z = max(buffer[j] - best, _LOWEST)
            e = exp64(z * beta)
            ez = e * z
            total += e
            first += ez
            second += ez * z
            third += ez * z * z
        mean, square = first / total, second / total
        label_z = buffer[labels[i]] - best
        out[0, i] = math.log(total) - beta * label_z
        out[1, i] = mean - label_z
        out[2, i] = max(square - mean * mean, 0.0)
        out[3, i] = third / total - 3.0 * square * mean + 2.0 * mean * mean * mean


@compiled(fastmath=FAST, forceinline=True)
def _add_total(buffer, scale, totals):  # type: ignore[no-untyped-def]
    for j in range(buffer.size):
        totals[j] += int64(buffer[j] * scale + 0.5)


@compiled(forceinline=True)
def _largest(words, first, count):  # type: ignore[no-untyped-def]
    """Return the largest of a stretch of non-negative floats, given by their bits."""
    base = first & 0xFFFFFFF
    best = int64(0)
    for j in range(count):
        best = max(best, words[base + j])
    return float_of_bits(best)


@compiled(nogil=True, cache=True)
def classwise_rows(logits, labels, valid, beta, n_bins, totals, sums, hits, start, stop):  # type: ignore[no-untyped-def]
    """Add rows to the (class, bin) table: probability sums in units of 2**-40, and how often the class was
    right.

    Most probabilities of a row lie in the first bin: those only enter the column totals.
    """
    n = logits.shape[1]
    buffer = np.empty(n, np.float64)
    words = buffer.view(np.int64)
    unit = float64(UNIT)
    for i in range(start, stop):
        if not valid[i]:
            continue
        best = load(logits[i], buffer)
        total = exponentials(buffer, best, beta)
        _add_total(buffer, unit / total, totals)
        # At most n_bins - 1 classes of a row can lie above the first bin: most stretches hold none.
        bound = total / n_bins
        for stretch in range((n + _STRETCH - 1) // _STRETCH):
            first = stretch * _STRETCH
            last = min(first + _STRETCH, n)
            if _largest(words, first, last - first) <= bound:
                continue
            for j in range(first, last):
                if buffer[j] > bound:
                    place = min(int64(math.ceil(buffer[j] / total * n_bins)) - 1, n_bins - 1)
                    sums[j, place] += int64(buffer[j] * (unit / total) + 0.5)
        label = labels[i]
        # (low, high] bins; 0 belongs to the first.
        place = min(max(int64(math.ceil(buffer[label] / total * n_bins)) - 1, 0), n_bins - 1)
        hits[label, place] += 1
