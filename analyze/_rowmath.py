"""What the fused pass does with one row of logits: top classes, rank, sums, GEN. All compiled into its loop.

numba's cache watches the kernel's own file only: after a change here or in ``_fastmath.py``, touch
``_kernels.py``.
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
STEP = 4 * LANES
_FOURS = LANES // 4
FLOOR = float32(-1e5)  # stands for -inf inside a row: exp of it is nothing, and its products stay finite
_FEW = 24
_TINY = float32(1e-18)  # squares stay normal numbers: denormals are slow, and 1e-36 is nothing


@compiled(fastmath=FAST, forceinline=True)
def _decode_half(row, buffer):  # type: ignore[no-untyped-def]
    total = float32(0.0)
    for j in range(row.size):
        value = half_to_float(row[j])
        buffer[j] = value
        total += value
    return total


@compiled(fastmath=FAST, forceinline=True)
def _decode_single(row, buffer):  # type: ignore[no-untyped-def]
    total = float32(0.0)
    for j in range(row.size):
        value = float32(row[j])
        buffer[j] = value
        total += value
    return total


def decode(row: Any, buffer: Any) -> Any:
    """Logits -> float32; returns their sum, which is not finite where one of them is not."""
    raise NotImplementedError("runs only inside a compiled kernel")


@overload(decode, inline="never")
def _decode(row, buffer):  # type: ignore[no-untyped-def]
    if row.dtype == types.uint16:
        return lambda row, buffer: _decode_half(row, buffer)
    return lambda row, buffer: _decode_single(row, buffer)


@compiled()
def settle(buffer, n):  # type: ignore[no-untyped-def]
    """Return whether a row holds NaN or +inf; a -inf, a class that cannot win, becomes the floor."""
    bad = False
    for j in range(n):
        value = buffer[j]
        bad |= not (value < np.inf)
        if value < FLOOR:
            buffer[j] = FLOOR
    return bad


@compiled(fastmath=True, forceinline=True)
def lane_maxima(buffer, width, lanes):  # type: ignore[no-untyped-def]
    """Largest of every residue class modulo the number of lanes: a vertical maximum, no shuffles."""
    for lane in range(LANES):
        lanes[lane] = float32(-3e38)
    for start in range(0, width, STEP):
        for lane in range(LANES):
            j = start + lane
            one = max(buffer[j], buffer[j + LANES])
            other = max(buffer[j + 2 * LANES], buffer[j + 3 * LANES])
            lanes[lane] = max(lanes[lane], max(one, other))


@compiled(fastmath=True, forceinline=True)
def bound_below(lanes):  # type: ignore[no-untyped-def]
    """Return a number that at least TOP lanes reach: the TOP-th largest distinct of the maxima of fours."""
    fours = np.empty(_FOURS, np.float32)
    for f in range(_FOURS):
        one = max(lanes[f], lanes[f + _FOURS])
        fours[f] = max(one, max(lanes[f + 2 * _FOURS], lanes[f + 3 * _FOURS]))
    bound = float32(3e38)
    for _ in range(TOP):
        best = float32(-3e38)
        for f in range(_FOURS):
            value = fours[f] if fours[f] < bound else float32(-3e38)
            best = max(best, value)
        bound = best
    return bound


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
    bound = bound_below(lanes)
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
def bracket(buffer, n, wanted, guess, spread):  # type: ignore[no-untyped-def]
    """Return (low, high, count >= high) with the value of place `wanted` in [low, high), and few others there.

    Bisection on the value, started from where a normal row would have its quantile.
    """
    low, high = float32(FLOOR * float32(2.0)), float32(np.inf)
    count_low, count_high = n, 0
    step = float32(0.25) * float32(spread) + float32(1e-6)
    for _ in range(200):
        if count_low - count_high <= _FEW:
            break
        count = count_from(buffer, n, guess)
        if count >= wanted:
            low = guess
            count_low = count
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
                break  # all that are left are equal
    return low, high, count_high


@compiled(forceinline=True)
def gather(buffer, n, low, kept):  # type: ignore[no-untyped-def]
    """Copy the values >= low to the front of `kept`, in no order; returns how many.

    No branch, and four streams side by side: one alone waits for its own counter.
    """
    quarter = n // 4
    second, third, fourth = quarter, 2 * quarter, 3 * quarter
    a, b, c, d = 0, second, third, fourth
    for j in range(quarter):
        v, w, x, y = buffer[j], buffer[second + j], buffer[third + j], buffer[fourth + j]
        kept[a] = v
        kept[b] = w
        kept[c] = x
        kept[d] = y
        a += v >= low
        b += w >= low
        c += x >= low
        d += y >= low
    for j in range(4 * quarter, n):
        kept[d] = buffer[j]
        d += buffer[j] >= low
    for j in range(second, b):
        kept[a] = kept[j]
        a += 1
    for j in range(third, c):
        kept[a] = kept[j]
        a += 1
    for j in range(fourth, d):
        kept[a] = kept[j]
        a += 1
    return a


@compiled(forceinline=True)
def place_in(kept, count, place, high):  # type: ignore[no-untyped-def]
    """Return the value of place `place` (1 is the largest) among those below high; few are expected."""
    left = 0
    few = np.empty(count, np.float32)
    for j in range(count):
        value = kept[j]
        if value < high:
            at = left
            while at > 0 and few[at - 1] < value:
                few[at] = few[at - 1]
                at -= 1
            few[at] = value
            left += 1
    return few[place - 1]


@compiled(fastmath=FAST, forceinline=True)
def gen_sum(kept, count, last, log_total, scale, gamma):  # type: ignore[no-untyped-def]
    """Sum of (p (1-p))^gamma over values >= last, z being the logit less the top one; scale is 1 / sum of e."""
    total = float32(0.0)
    for j in range(count):
        z = kept[j]
        rest = max(float32(1.0) - exp32(z) * scale, float32(1e-30))
        total += exp32(gamma * (z - log_total + log32(rest))) * float32(z >= last)
    return total


@compiled(forceinline=True)
def gen_score(buffer, n, kept, rest, gamma, largest, mean, spread):  # type: ignore[no-untyped-def]
    """GEN's sum over the `largest` classes; the top class (z = 0) is taken off the row and added in its own right.

    1 - p of the top class is rest / (1 + rest): exact where p itself rounds to 1.
    """
    log_total = float32(math.log1p(rest))
    scale = float32(1.0 / (1.0 + rest))
    total = math.exp(gamma * (math.log(max(rest, 1e-300)) - 2.0 * math.log1p(rest)))
    wanted = min(largest, n) - 1
    if wanted <= 0:
        return total
    # The place of the top class holds the floor, below every other, so that the others' places are unchanged.
    if wanted == n - 1:
        low = FLOOR * float32(0.5)
        count = gather(buffer, n, low, kept)
        return total + gen_sum(kept, count, low, log_total, scale, float32(gamma))
    # 1.2816 is the normal quantile of the default's share, 100 of 1,000; only the start of the search.
    low, high, above = bracket(buffer, n, wanted, float32(mean + float32(1.2816) * spread), spread)
    count = gather(buffer, n, low, kept)
    last = low if count - above > _FEW else place_in(kept, count, wanted - above, high)
    total += gen_sum(kept, count, last, log_total, scale, float32(gamma))
    reached = count_from(kept, count, last)
    if reached > wanted:
        # The last place is shared by several classes: as many of them as fit.
        p = math.exp(last) * scale
        total -= (reached - wanted) * math.exp(gamma * (last - log_total + math.log1p(-min(p, 0.5))))
    return total
