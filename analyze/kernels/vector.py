"""Sums over rows for fitting a scale and a bias per class: NLL and its derivatives, in float64."""

from __future__ import annotations

import math

import numpy as np

from analyze.kernels.fastmath import FAST, exp64
from analyze.kernels.fitting import value
from analyze.kernels.keeping import compiled

_LOWEST = -1e5  # beyond it exp is nothing, and stays finite


@compiled(nogil=True, cache=True, fastmath=FAST)
def vector_tiles(logits, centers, labels, scale, bias, tile, out, first, last):  # type: ignore[no-untyped-def]
    """Sum over tiles of rows, one line of ``out`` each: -log p(label), (p - y) z by class, p - y by class, rows
    whose label is not the top.

    z is the logit with its row's centre, p the softmax of scale * z + bias. A tile is one thread's work from
    its first row to its last, so that no bit depends on the number of threads.
    """
    n = logits.shape[1]
    raw = np.empty(n, np.float64)
    moved = np.empty(n, np.float64)
    for t in range(first, last):
        sums = out[t]
        sums[:] = 0.0
        for i in range(t * tile, min((t + 1) * tile, logits.shape[0])):
            row, center = logits[i], centers[i]
            best = -np.inf
            for j in range(n):
                raw[j] = value(row[j]) + center
                moved[j] = scale[j] * raw[j] + bias[j]
                best = max(best, moved[j])
            label = labels[i]
            own = moved[label] - best
            total = 0.0
            for j in range(n):
                e = exp64(max(moved[j] - best, _LOWEST))
                moved[j] = e
                total += e
            part = 1.0 / total
            for j in range(n):
                p = moved[j] * part
                sums[1 + j] += p * raw[j]
                sums[1 + n + j] += p
            sums[0] += math.log(total) - own
            sums[1 + label] -= raw[label]
            sums[1 + n + label] -= 1.0
            if own < 0.0:
                sums[1 + 2 * n] += 1.0
