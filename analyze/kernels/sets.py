"""Kernels for conformal sets: how much probability lies at or above the label, and how many classes a set
holds.
"""

from __future__ import annotations

import math

import numpy as np

from analyze.kernels.fastmath import FAST
from analyze.kernels.fitting import exponentials, load
from analyze.kernels.keeping import compiled

_FEW = 24


@compiled(nogil=True, cache=True)
def set_rows(  # type: ignore[no-untyped-def]
    logits, labels, use, beta, quantiles, penalty, free_ranks, mass, last, sizes, offset, start, stop
):
    """Per row: mass and number of the classes at least as probable as the label; sizes of LAC, APS, RAPS
    sets.

    ``quantiles`` (3,) are the largest scores that are let in; a NaN leaves the size out.
    """
    n = logits.shape[1]
    buffer = np.empty(n, np.float64)
    kept = np.empty(n + 1, np.float64)
    for i in range(start, stop):
        if not use[i]:
            continue
        best = load(logits[i], buffer)
        total = exponentials(buffer, best, beta)
        label = labels[i]
        if label >= 0:
            above, count = _at_least(buffer, buffer[label])
            mass[offset + i] = above / total
            last[offset + i] = count
        if not np.isnan(quantiles[0]):
            # 1 - p <= q
            sizes[0, offset + i] = _at_least(buffer, (1.0 - quantiles[0]) * total)[1]
        if not np.isnan(quantiles[1]):
            # The same types as below: one specialisation. Without a penalty the rank does not matter.
            sizes[1, offset + i] = _leading(buffer, kept, total, quantiles[1], 0.0 * penalty, free_ranks)
        if not np.isnan(quantiles[2]):
            sizes[2, offset + i] = _leading(buffer, kept, total, quantiles[2], penalty, free_ranks)


@compiled(fastmath=FAST, forceinline=True)
def _at_least(buffer, threshold):  # type: ignore[no-untyped-def]
    """Return mass and number of the classes at or above a threshold."""
    mass, count = 0.0, 0
    for j in range(buffer.size):
        e = buffer[j]
        here = e >= threshold
        mass += e if here else 0.0
        count += 1 if here else 0
    return mass, count


@compiled()
def _put_largest_first(values):  # type: ignore[no-untyped-def]
    """Sort a few values by insertion: numba's general sort takes seconds to compile."""
    for i in range(1, values.size):
        value, j = values[i], i
        while j > 0 and values[j - 1] < value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@compiled()
def _leading(buffer, kept, total, quantile, penalty, free_ranks):  # type: ignore[no-untyped-def]
    """Count classes whose cumulated mass, plus the penalty of their rank, is at most the quantile; ties together.

    Bisection on the threshold until few classes are left to sort; the top class has e = 1.
    """
    n = buffer.size
    if quantile >= 1.0 + penalty * max(n - free_ranks, 0):
        return n
    # Classes below this bound have together less than 1 - quantile: the set is full before they come.
    low, high = max(max(1.0 - quantile, 0.0) / n * total, 1e-300), 1.0 + 1e-9
    mass_high, count_high = 0.0, 0
    _, count_low = _at_least(buffer, low)
    for _ in range(100):
        if count_low - count_high <= _FEW:
            break
        middle = math.sqrt(low * high)
        if middle <= low or middle >= high:
            break
        mass, count = _at_least(buffer, middle)
        if mass / total + penalty * max(count - free_ranks, 0) > quantile:
            low = middle
            count_low = count
        else:
            high = middle
            mass_high, count_high = mass, count
    left = 0
    for j in range(n):
        kept[left] = buffer[j]
        left += (buffer[j] >= low) & (buffer[j] < high)
    leading = kept[:left]
    _put_largest_first(leading)
    mass, size, j = mass_high, count_high, 0
    while j < left:
        last = j
        mass += leading[j]
        while last + 1 < left and leading[last + 1] == leading[j]:
            last += 1
            mass += leading[last]
        if mass / total + penalty * max(count_high + last + 1 - free_ranks, 0) > quantile:
            return size
        size = count_high + last + 1
        j = last + 1
    return size
