"""The fused pass: one reading of a block of logits gives every per-image statistic the metrics need.

Rows are independent: every sum stays within its row, so neither block size nor number of threads can
change a bit.
Kernels release the GIL; :func:`image_statistics` spreads the rows of a block over threads.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import float32
from numpy.typing import NDArray

from analyze.kernels.keeping import compiled
from analyze.kernels.rowmath import (
    FLOOR,
    LANES,
    STEP,
    TOP,
    binomial_series,
    decode,
    gen_score,
    mean_and_spread,
    rank_of,
    settle,
    sums,
    sums_kept,
    top_classes,
)
from closerlook_common.errors import UserError

# Floats of a row that do not depend on the temperature ...
MAX_LOGIT, GEN, LABEL_MARGIN, N_FIXED = 0, 1, 2, 3
# ... and those that do, once per temperature.
CONFIDENCE, LOG_SUM_EXP, LABEL_LOG_PROBABILITY, ENTROPY, SUM_SQUARES, MARGIN, N_SCALED = 0, 1, 2, 3, 4, 5, 6


@compiled(nogil=True, cache=True)
def _rows(  # type: ignore[no-untyped-def]
    logits,
    centers,
    labels,
    valid,
    betas,
    gen_largest,
    gen_gamma,
    gen_series,
    fixed,
    scaled,
    top,
    rank,
    offset,
    start,
    stop,
):
    n = logits.shape[1]
    width = (n + STEP - 1) // STEP * STEP
    buffer = np.empty(width, np.float32)
    kept = np.empty(width, np.float32)
    lanes = np.empty(LANES, np.float32)
    values = np.empty(TOP, np.float32)
    places = np.empty(TOP, np.int32)
    for i in range(start, stop):
        if not valid[i]:
            continue
        if not math.isfinite(decode(logits[i], buffer)) and settle(buffer, n):
            return i
        for j in range(n, width):
            buffer[j] = float32(-3e38)
        top_classes(buffer, n, width, lanes, values, places)
        best = values[0]
        o = offset + i
        label = labels[i]
        label_z = np.nan
        rank[o] = -1
        if label >= 0:
            rank[o] = rank_of(buffer, n, label)
            label_z = buffer[label] - best if buffer[label] > FLOOR else -np.inf
            other = values[1] if places[0] == label else best
            fixed[LABEL_MARGIN, o] = buffer[label] - other
        for t in range(TOP):
            top[t, o] = places[t]
        fixed[MAX_LOGIT, o] = centers[i] + best
        for j in range(n):
            buffer[j] -= best
        second_z = values[1] - best
        mean, spread = mean_and_spread(buffer, n) if gen_largest > 0 else (float32(0.0), float32(0.0))
        buffer[places[0]] = FLOOR
        for k in range(betas.size):
            beta = betas[k]
            if k == 0 and gen_largest > 0:
                rest, squares, weighted = sums_kept(buffer, n, float32(beta), kept)
            else:
                rest, squares, weighted = sums(buffer, n, float32(beta))
            log_total = math.log1p(rest)
            total = 1.0 + rest
            scaled[k, CONFIDENCE, o] = 1.0 / total
            scaled[k, LOG_SUM_EXP, o] = beta * (float(centers[i]) + best) + log_total
            scaled[k, LABEL_LOG_PROBABILITY, o] = beta * label_z - log_total
            scaled[k, ENTROPY, o] = log_total - weighted / total
            scaled[k, SUM_SQUARES, o] = (1.0 + squares) / (total * total)
            scaled[k, MARGIN, o] = (1.0 - math.exp(beta * second_z)) / total if n > 1 else 1.0
            if k == 0 and gen_largest > 0:
                fixed[GEN, o] = gen_score(
                    buffer, kept, n, values, places, rest, gen_gamma, gen_series, gen_largest, mean, spread
                )
    return -1


@dataclass(frozen=True)
class RowStatistics:
    """Per-image statistics of n rows at k temperatures, as the kernel writes them.

    Attributes
    ----------
    fixed
        (N_FIXED, n) float32: MAX_LOGIT, GEN, LABEL_MARGIN.
    scaled
        (k, N_SCALED, n) float32: CONFIDENCE ... MARGIN of softmax(logits / temperature); LOG_SUM_EXP is of
        logits / temperature, not multiplied back.
    top
        (TOP, n) int32: places of the largest logits, -1 where there are fewer classes.
    rank
        (n,) int32: place of the label among the sorted logits (0 is right), -1 without a label.
    """

    fixed: NDArray[np.float32]
    scaled: NDArray[np.float32]
    top: NDArray[np.int32]
    rank: NDArray[np.int32]

    @classmethod
    def empty(cls, n: int, temperatures: int) -> RowStatistics:
        """Return statistics of n rows that are not computed yet: NaN and -1."""
        return cls(
            np.full((N_FIXED, n), np.nan, np.float32),
            np.full((temperatures, N_SCALED, n), np.nan, np.float32),
            np.full((TOP, n), -1, np.int32),
            np.full(n, -1, np.int32),
        )


def as_rows(logits: NDArray[Any]) -> NDArray[Any]:
    """Return logits as the kernels take them: the bits of float16 as uint16, anything else as float32."""
    if logits.dtype == np.float16:
        return np.ascontiguousarray(logits).view(np.uint16)
    return np.ascontiguousarray(logits, np.float32)


@functools.cache
def _helpers(process: int) -> ThreadPoolExecutor:
    """Threads that wait for rows, of this process: starting some for every block would cost as much as a block."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="rows")


def spread_rows(work: Callable[[int, int], int], n: int, threads: int) -> int:
    """Run ``work(start, stop)`` over n rows on some threads; the smallest non-negative answer, or -1."""
    if threads <= 1 or n < 2 * threads:
        return work(0, n)
    edges = [n * t // threads for t in range(threads + 1)]
    pending = [_helpers(os.getpid()).submit(work, *part) for part in itertools.pairwise(edges[1:])]
    answers = [work(edges[0], edges[1]), *(part.result() for part in pending)]
    return min((a for a in answers if a >= 0), default=-1)


def image_statistics(
    logits: NDArray[Any],
    *,
    centers: NDArray[np.float32] | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    valid: NDArray[np.bool_] | None = None,
    temperatures: Sequence[float] = (1.0,),
    gen: tuple[int, float] | None = (100, 0.1),
    threads: int = 1,
    out: RowStatistics | None = None,
    offset: int = 0,
) -> RowStatistics:
    """Compute the per-image statistics of a block of logits in one pass.

    Parameters
    ----------
    logits
        (m, C) float16 (row-centred, as stored) or float32. A -inf is a class that cannot win.
    centers
        (m,) what was taken off each row; zeros when None. Only MAX_LOGIT and LOG_SUM_EXP depend on it.
    labels
        (m,) place of the label among the C columns; negative where there is none.
    valid
        (m,) rows to compute; the others stay NaN.
    temperatures
        Each T gives the softmax of logits / T; the first should be 1, GEN is computed from it.
    gen
        (M, gamma) of GEN, or None to leave it out.
    threads
        Threads over the rows; the answer does not depend on it.
    out, offset
        Where to write: rows offset ... offset + m of these statistics; new ones when None.

    Raises
    ------
    UserError
        Where a valid row holds NaN or +inf (the row is named), or a label is not a column.
    """
    m, n_classes = logits.shape
    if out is None:
        out = RowStatistics.empty(m, len(temperatures))
        offset = 0
    if m == 0:
        return out
    if not all(0.0 < temperature < math.inf for temperature in temperatures):
        raise UserError(f"temperatures must be positive and finite, not {list(temperatures)}")
    betas = 1.0 / np.asarray(temperatures, np.float64)
    places = np.full(m, -1, np.int32) if labels is None else np.ascontiguousarray(labels, np.int32)
    if places.max() >= n_classes:
        row = offset + int(places.argmax())
        raise UserError(f"row {row}: label {places.max()} is not one of the {n_classes} classes")
    rows = as_rows(logits)
    center = np.zeros(m, np.float32) if centers is None else np.ascontiguousarray(centers, np.float32)
    use = np.ones(m, np.bool_) if valid is None else np.ascontiguousarray(valid, np.bool_)
    largest, gamma = (0, 0.1) if gen is None else gen
    series = binomial_series(float(gamma))
    target = (out.fixed, out.scaled, out.top, out.rank, offset)

    def work(start: int, stop: int) -> int:
        return int(_rows(rows, center, places, use, betas, largest, float(gamma), series, *target, start, stop))

    bad = spread_rows(work, m, threads)
    if bad >= 0:
        raise UserError(f"row {offset + bad}: a logit is NaN or +inf")
    return out
