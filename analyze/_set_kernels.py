"""Kernels for conformal sets: how much probability lies at or above the label, and how many classes a set
holds.
"""

from __future__ import annotations

import numpy as np

from analyze._fastmath import compiled
from analyze._fit_kernels import exponentials, load


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
    kept = np.empty(n, np.float64)
    for i in range(start, stop):
        if not use[i]:
            continue
        best = load(logits[i], buffer)
        total = exponentials(buffer, best, beta)
        label = labels[i]
        if label >= 0:
            own = buffer[label]
            above = 0.0
            count = 0
            for j in range(n):
                e = buffer[j]
                above += e if e >= own else 0.0
                count += 1 if e >= own else 0
            mass[offset + i] = above / total
            last[offset + i] = count
        if not np.isnan(quantiles[0]):
            # 1 - p <= q
            bound = (1.0 - quantiles[0]) * total
            count = 0
            for j in range(n):
                count += 1 if buffer[j] >= bound else 0
            sizes[0, offset + i] = count
        if not np.isnan(quantiles[1]):
            sizes[1, offset + i] = _leading(buffer, kept, total, quantiles[1], 0.0, 0)
        if not np.isnan(quantiles[2]):
            sizes[2, offset + i] = _leading(buffer, kept, total, quantiles[2], penalty, free_ranks)


@compiled()
def _leading(buffer, kept, total, quantile, penalty, free_ranks):  # type: ignore[no-untyped-def]
    """Count classes whose cumulated mass, plus the penalty of their rank, is at most the quantile; ties
    together.
    """
    n = buffer.size
    if quantile >= 1.0 + penalty * max(n - free_ranks, 0):
        return n
    # Classes below this bound have together less than 1 - quantile: the set is full before they come.
    bound = max(1.0 - quantile, 0.0) / n * total
    count = 0
    for j in range(n):
        if buffer[j] >= bound:
            kept[count] = buffer[j]
            count += 1
    leading = np.sort(kept[:count])[::-1]
    mass = 0.0
    size = 0
    j = 0
    while j < count:
        last = j
        mass += leading[j]
        while last + 1 < count and leading[last + 1] == leading[j]:
            last += 1
            mass += leading[last]
        if mass / total + penalty * max(last + 1 - free_ranks, 0) > quantile:
            return size
        size = last + 1
        j = last + 1
    return size
