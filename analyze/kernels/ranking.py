"""Weighted walks along sorted confidences, for many bootstrap replicates at once.

A row's weights lie side by side, so each row is sorted and looked at once for all replicates. Replicates are
taken 64 at a time, with everything that is known of these 64 lying side by side in one table: loops of a fixed
length over one array, which the compiler turns into vector code without a remainder. Rows lie anywhere in memory,
so their weights are asked for some rows ahead. Counts are float32, exact below 2^24; areas are float32 over a few
groups and float64 over those; sums of real numbers are float64.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64

from analyze.kernels.fastmath import compiled, fetch_ahead

WIDE = 64
AHEAD = 16
_FAST = {"contract", "arcp", "nsz"}
_FLUSH = 32
_CHECK = 64
_TINY = float32(1e-30)
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


# Floats of a block of the calibration walk, and its doubles.
_WEIGHT, _COUNT, _WRONG, _FLOATS = 0, 1, 2, 3
_TOTAL, _LARGEST, _DOUBLES = 0, 1, 2


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _calibration_row(s, base, d, deep, gap, wrong, at_end):  # type: ignore[no-untyped-def]
    base = base & _SMALL
    deep = deep & _SMALL
    for r in range(WIDE):
        weight = s[base + _WEIGHT * WIDE + r]
        s[base + _COUNT * WIDE + r] += weight
        s[base + _WRONG * WIDE + r] += weight * wrong
    if at_end:
        for r in range(WIDE):
            total = d[deep + _TOTAL * WIDE + r] + gap * float64(s[base + _WEIGHT * WIDE + r])
            d[deep + _TOTAL * WIDE + r] = total
            d[deep + _LARGEST * WIDE + r] = max(d[deep + _LARGEST * WIDE + r], abs(total))
    else:
        for r in range(WIDE):
            d[deep + _TOTAL * WIDE + r] += gap * float64(s[base + _WEIGHT * WIDE + r])


@compiled(nogil=True, cache=True, fastmath=_FAST)
def calibration_walk(order, is_end, gaps, wrong, weights, cuts, at_gap, at_count, at_wrong, largest):  # type: ignore[no-untyped-def]
    """Walk from the least confident row up; what was met before each cut, and the largest size of a total.

    Parameters: ``order`` (n,) rows; ``is_end`` (n,) whether the next confidence is another one; ``gaps`` and
    ``wrong`` (n,) in that order; ``cuts`` (k,) rising places in the order, the last one n; ``at_gap``,
    ``at_count`` and ``at_wrong`` (k, R) and ``largest`` (R,) are written.
    """
    n, n_replicates = order.size, weights.shape[1]
    n_blocks = (n_replicates + WIDE - 1) // WIDE
    s = np.zeros(n_blocks * _FLOATS * WIDE, np.float32)
    d = np.zeros(n_blocks * _DOUBLES * WIDE, np.float64)
    cut = 0
    for k in range(n + 1):
        while cut < cuts.size and cuts[cut] == k:
            for b in range(n_blocks):
                base, deep, first = b * _FLOATS * WIDE, b * _DOUBLES * WIDE, b * WIDE
                for r in range(min(WIDE, n_replicates - first)):
                    at_gap[cut, first + r] = d[deep + _TOTAL * WIDE + r]
                    at_count[cut, first + r] = s[base + _COUNT * WIDE + r]
                    at_wrong[cut, first + r] = s[base + _WRONG * WIDE + r]
            cut += 1
        if k == n:
            break
        ahead = int64(order[min(k + AHEAD, n - 1)])
        for b in range(n_blocks):
            fetch_ahead(weights, ahead, b * WIDE)
            base, deep = (b * _FLOATS * WIDE) & _SMALL, (b * _DOUBLES * WIDE) & _SMALL
            load_weights(weights, order[k], b, s, base)
            _calibration_row(s, base, d, deep, gaps[k], wrong[k], is_end[k])
    for b in range(n_blocks):
        deep, first = b * _DOUBLES * WIDE, b * WIDE
        for r in range(min(WIDE, n_replicates - first)):
            largest[first + r] = d[deep + _LARGEST * WIDE + r]


# Floats of a block of the selective walk: weight of a group and of its errors, weight of the group before, rows
# below, rows and errors at or above, risk, and the two areas.
_W, _BAD, _BEFORE, _BELOW, _ABOVE, _ERRORS, _ERRORS_ABOVE, _RISK, _AREA, _JOINT, _SLOTS = range(11)


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _selective_group(s, base, n):  # type: ignore[no-untyped-def]
    base = base & _SMALL
    for r in range(WIDE):
        weight, bad = s[base + _W * WIDE + r], s[base + _BAD * WIDE + r]
        above = n - s[base + _BELOW * WIDE + r]
        errors = s[base + _ERRORS * WIDE + r]
        risk = s[base + _RISK * WIDE + r]
        # Where nothing was drawn at or above, the risk of the last group that was stays.
        now = errors / (above + _TINY)
        now = now if above > float32(0.0) else risk
        s[base + _AREA * WIDE + r] += s[base + _BEFORE * WIDE + r] * (risk + now)
        s[base + _JOINT * WIDE + r] += weight * (errors + errors - bad)
        s[base + _ABOVE * WIDE + r] = above
        s[base + _ERRORS_ABOVE * WIDE + r] = errors
        s[base + _BEFORE * WIDE + r] = weight
        s[base + _RISK * WIDE + r] = now
        s[base + _ERRORS * WIDE + r] = errors - bad
        s[base + _BELOW * WIDE + r] += weight


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _points(s, base, p, place, bounds, skips, wanted, active):  # type: ignore[no-untyped-def]
    base = base & _SMALL
    for q in range(bounds.size):
        if active[q]:
            here = (place + q * WIDE) & _SMALL
            bound, skip = bounds[q], skips[q]
            for r in range(WIDE):
                above, errors = s[base + _ABOVE * WIDE + r], s[base + _ERRORS_ABOVE * WIDE + r]
                fits = above if (above > skip) & (errors <= bound * above) else float32(0.0)
                p[here + r] = max(p[here + r], fits)
    for q in range(wanted.size):
        if active[bounds.size + q]:
            here = (place + (bounds.size + q) * WIDE) & _SMALL
            least = wanted[q]
            for r in range(WIDE):
                enough = s[base + _ABOVE * WIDE + r] >= least
                p[here + r] = s[base + _RISK * WIDE + r] if enough else p[here + r]


@compiled(nogil=True, cache=True, fastmath=_FAST)
def _still_active(s, p, n_blocks, n_replicates, bounds, wanted, active):  # type: ignore[no-untyped-def]
    """Put out the points that every replicate has passed: going up, the first fit is the largest coverage."""
    n_points = bounds.size + wanted.size
    for q in range(n_points):
        if active[q]:
            left = False
            for b in range(n_blocks):
                for r in range(min(WIDE, n_replicates - b * WIDE)):
                    if q < bounds.size:
                        left |= p[(b * n_points + q) * WIDE + r] == float32(0.0)
                    else:
                        left |= s[(b * _SLOTS + _ABOVE) * WIDE + r] >= wanted[q - bounds.size]
            active[q] = left


@compiled(nogil=True, cache=True, fastmath=_FAST)
def selective_walk(order, starts, wrong, weights, errors, bounds, skips, wanted, out, at_points):  # type: ignore[no-untyped-def]
    """Walk from the least confident group up: areas, and points of the risk-coverage curve.

    Parameters: ``order`` and ``wrong`` (n,) rows and their errors; ``starts`` where groups of equal confidence
    begin, and the end; ``errors`` (R,) all errors of a replicate; ``bounds``, ``skips`` a largest risk and the
    rows to skip; ``wanted`` rows to answer. ``out`` (2, R) gets AURC and AUGRC, ``at_points`` (points, R) the rows
    answered at each risk, then the risk at each coverage.
    """
    n_replicates = weights.shape[1]
    n_blocks = (n_replicates + WIDE - 1) // WIDE
    n_points = bounds.size + wanted.size
    n = float32(order.size)
    s = np.zeros(n_blocks * _SLOTS * WIDE, np.float32)
    p = np.zeros(n_blocks * n_points * WIDE, np.float32)
    totals = np.zeros((2, n_blocks * WIDE))
    active = np.ones(n_points, np.bool_)
    for b in range(n_blocks):
        for r in range(min(WIDE, n_replicates - b * WIDE)):
            s[(b * _SLOTS + _ERRORS) * WIDE + r] = errors[b * WIDE + r]
    for g in range(starts.size - 1):
        first, last = starts[g], starts[g + 1]
        for b in range(n_blocks):
            base = (b * _SLOTS * WIDE) & _SMALL
            fetch_ahead(weights, int64(order[min(first + AHEAD, order.size - 1)]), b * WIDE)
            load_weights(weights, order[first], b, s, base + _W * WIDE)
            bad = wrong[first]
            for r in range(WIDE):
                s[base + _BAD * WIDE + r] = s[base + _W * WIDE + r] * bad
            for k in range(first + 1, last):
                add_weights(weights, order[k], b, s, base + _W * WIDE)
                if wrong[k] > float32(0.0):
                    add_weights(weights, order[k], b, s, base + _BAD * WIDE)
            _selective_group(s, base, n)
            _points(s, base, p, b * n_points * WIDE, bounds, skips, wanted, active)
        if g % _FLUSH == _FLUSH - 1:
            _flush(s, totals, n_blocks)
        if g % _CHECK == _CHECK - 1:
            _still_active(s, p, n_blocks, n_replicates, bounds, wanted, active)
    _flush(s, totals, n_blocks)
    for b in range(n_blocks):
        for r in range(min(WIDE, n_replicates - b * WIDE)):
            base, at = b * _SLOTS * WIDE + r, b * WIDE + r
            last_part = 2.0 * float64(s[base + _BEFORE * WIDE]) * float64(s[base + _RISK * WIDE])
            out[0, at] = (totals[0, at] + last_part) / (2.0 * float64(n))
            out[1, at] = totals[1, at] / (2.0 * float64(n) * float64(n))
            for q in range(n_points):
                at_points[q, at] = p[(b * n_points + q) * WIDE + r]


@compiled(nogil=True, cache=True)
def _flush(s, totals, n_blocks):  # type: ignore[no-untyped-def]
    for b in range(n_blocks):
        base = (b * _SLOTS * WIDE) & _SMALL
        for r in range(WIDE):
            totals[0, b * WIDE + r] += float64(s[base + _AREA * WIDE + r])
            totals[1, b * WIDE + r] += float64(s[base + _JOINT * WIDE + r])
            s[base + _AREA * WIDE + r] = float32(0.0)
            s[base + _JOINT * WIDE + r] = float32(0.0)
