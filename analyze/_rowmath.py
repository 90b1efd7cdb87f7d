"""What the fused pass does with one row of logits: top classes, rank, sums, GEN. All compiled into its
loop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, int32, types
from numba.extending import overload

from analyze._fastmath import FAST, compiled, exp32, half_to_float, log32

TOP = 5

LANES = 64
STEP = 2 * LANES
FLOOR = float32(-1e5)  # stands for -inf inside a row: exp of it is nothing, and its products stay finite
_TINY = float32(1e-18)  # squares stay normal numbers: denormals are slow, and 1e-36 is nothing


@compiled(fastmath=FAST, forceinline=True)
def _decode_half(row, buffer):  # type: ignore[no-untyped-def]
    bad = int32(0)
    for j in range(row.size):
        bits = row[j]
        bad = int32(bad + int32((bits & 0x7FFF) > 0x7C00) + int32(bits == 0x7C00))
        buffer[j] = max(half_to_float(bits), FLOOR)
    return bad


@compiled(fastmath=FAST, forceinline=True)
def _decode_single(row, buffer):  # type: ignore[no-untyped-def]
    bad = int32(0)
    for j in range(row.size):
        value = row[j]
        bad = int32(bad + int32(not (value < np.inf)))
        buffer[j] = max(float32(value), FLOOR)
    return bad


def decode(row: Any, buffer: Any) -> Any:
    """Logits -> float32; returns the number of NaN and +inf (a -inf is a class that cannot win, and is
    kept).
    """
    raise NotImplementedError("runs only inside a compiled kernel")


@overload(decode, inline="never")
def _decode(row, buffer):  # type: ignore[no-untyped-def]
    if row.dtype == types.uint16:
        return lambda row, buffer: _decode_half(row, buffer)
    return lambda row, buffer: _decode_single(row, buffer)


@compiled(fastmath=True, forceinline=True)
def lane_maxima(buffer, width, lanes):  # type: ignore[no-untyped-def]
    """Largest of every residue class modulo the number of lanes: a vertical maximum, no shuffles."""
    for lane in range(LANES):
        lanes[lane] = max(buffer[lane], buffer[lane + LANES])
    for start in range(STEP, width, STEP):
        for lane in range(LANES):
            lanes[lane] = max(lanes[lane], max(buffer[start + lane], buffer[start + lane + LANES]))


@compiled(fastmath=True, forceinline=True)
def next_below(lanes, bound):  # type: ignore[no-untyped-def]
    best = float32(-3e38)
    for lane in range(LANES):
        value = lanes[lane]
        best = max(best, value if value < bound else float32(-3e38))
    return best


@compiled(forceinline=True)
def insert(values, places, value, place):  # type: ignore[no-untyped-def]
    """Put a value into the sorted TOP; among equals the lower place comes first."""
    t = TOP - 1
    if value < values[t] or (value == values[t] and place > places[t]):
        return
    while t > 0 and (value > values[t - 1] or (value == values[t - 1] and place < places[t - 1])):
        values[t] = values[t - 1]
        places[t] = places[t - 1]
        t -= 1
    values[t] = value
    places[t] = place


@compiled(forceinline=True)
def top_classes(buffer, n, width, lanes, values, places):  # type: ignore[no-untyped-def]
    """Write the TOP largest with their places, largest first.

    The TOP-th largest distinct of the lanes' maxima is no larger than the TOP-th largest value, so that
    only the few
    lanes that reach it are looked through.
    """
    lane_maxima(buffer, width, lanes)
    bound = float32(3e38)
    for _ in range(TOP):
        bound = next_below(lanes, bound)
    for t in range(TOP):
        values[t] = -np.inf
        places[t] = n
    for lane in range(LANES):
        if lanes[lane] >= bound:
            for j in range(lane, n, LANES):
                if buffer[j] >= bound:
                    insert(values, places, buffer[j], j)
    for t in range(n, TOP):
        places[t] = -1


@compiled(fastmath=FAST, forceinline=True)
def rank_of(buffer, n, place):  # type: ignore[no-untyped-def]
    """Place of the label in the row sorted from the largest; among equals the first place comes first."""
    value = buffer[place]
    above = int32(0)
    for j in range(n):
        above = int32(above + int32(buffer[j] > value))
    for j in range(place):
        above = int32(above + int32(buffer[j] == value))
    return above


@compiled(fastmath=FAST, forceinline=True)
def sums(buffer, n, beta):  # type: ignore[no-untyped-def]
    """Return sums over classes of e, e^2 and e z, with z = beta * (logit - top) and e = exp(z)."""
    total, squares, weighted = float32(0.0), float32(0.0), float32(0.0)
    for j in range(n):
        z = buffer[j] * beta
        e = exp32(z)
        total += e
        e_safe = max(e, _TINY)
        squares += e_safe * e_safe
        weighted += e * z
    return total, squares, weighted


@compiled(fastmath=FAST, forceinline=True)
def count_from(buffer, n, threshold):  # type: ignore[no-untyped-def]
    count = int32(0)
    for j in range(n):
        count = int32(count + int32(buffer[j] >= threshold))
    return count


@compiled(fastmath=FAST, forceinline=True)
def mean_and_spread(buffer, n):  # type: ignore[no-untyped-def]
    first, second = float32(0.0), float32(0.0)
    for j in range(n):
        first += buffer[j]
        second += buffer[j] * buffer[j]
    mean = first / float32(n)
    return mean, float32(math.sqrt(max(second / float32(n) - mean * mean, float32(0.0))))


@compiled(forceinline=True)
def threshold_of(buffer, n, wanted, guess, spread):  # type: ignore[no-untyped-def]
    """Return (t, count of values >= t) with count <= wanted, the largest count that ties allow.

    Bisection on the value, started from where a normal row would have its quantile.
    """
    low, high = float32(FLOOR * float32(2.0)), float32(np.inf)
    count_high = 0
    step = float32(0.25) * float32(spread) + float32(1e-6)
    for _ in range(200):
        count = count_from(buffer, n, guess)
        if count == wanted:
            return guess, count
        if count > wanted:
            low = guess
        else:
            high = guess
            count_high = count
        if high == np.inf:
            guess = float32(guess + step)
            step *= float32(2.0)
        elif low < FLOOR:
            guess = max(float32(guess - step), FLOOR)
            step *= float32(2.0)
        else:
            guess = float32(float32(0.5) * (low + high))
            if guess <= low or guess >= high:
                break
    return high, count_high


@compiled(forceinline=True)
def gather(buffer, n, threshold, kept):  # type: ignore[no-untyped-def]
    """Copy the values >= threshold, without a branch; returns how many."""
    count = 0
    for j in range(n):
        kept[count] = buffer[j]
        count += buffer[j] >= threshold
    return count


@compiled(fastmath=FAST, forceinline=True)
def gen_sum(kept, count, log_total, scale, gamma):  # type: ignore[no-untyped-def]
    """Sum of (p (1-p))^gamma, z being the logit less the top one; scale is 1 / sum of e; p must be below
    1.
    """
    total = float32(0.0)
    for j in range(count):
        z = kept[j]
        rest = max(float32(1.0) - exp32(z) * scale, float32(1e-30))
        total += exp32(gamma * (z - log_total + log32(rest)))
    return total


@compiled(forceinline=True)
def gen_score(buffer, n, kept, rest, gamma, largest, mean, spread):  # type: ignore[no-untyped-def]
    """GEN's sum over the `largest` classes; the top class (z = 0) is taken off the row and added in its
    own right.

    1 - p of the top class is rest / (1 + rest): exact where p itself rounds to 1.
    """
    log_total = float32(math.log1p(rest))
    scale = float32(1.0 / (1.0 + rest))
    total = math.exp(gamma * (math.log(max(rest, 1e-300)) - 2.0 * math.log1p(rest)))
    wanted = min(largest, n) - 1
    if wanted <= 0:
        return total
    if wanted == n - 1:
        # The place of the top class holds the floor, below every threshold but this one.
        threshold, count = float32(FLOOR * float32(0.5)), wanted
    else:
        # 1.2816 is the normal quantile of the default's share, 100 of 1,000; only the start of the search.
        guess = float32(mean + float32(1.2816) * spread)
        threshold, count = threshold_of(buffer, n, wanted, guess, spread)
    total += gen_sum(kept, gather(buffer, n, threshold, kept), log_total, scale, float32(gamma))
    if count < wanted:
        # The place is shared by several classes: as many of them as fit.
        tied = float32(-np.inf)
        for j in range(n):
            if tied < buffer[j] < threshold:
                tied = buffer[j]
        p = math.exp(tied) * scale
        total += (wanted - count) * math.exp(gamma * (tied - log_total + math.log1p(-min(p, 0.5))))
    return total
