"""What the fused pass does with one row of logits: top classes, rank, sums, GEN. All compiled into its loop.

numba's cache watches the kernel's own file only: after a change here or in ``fastmath.py``, touch
``statistics.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, int32, types
from numba.extending import overload
from numpy.typing import NDArray

from analyze.kernels.fastmath import FAST, exp32, half_to_float, log32
from analyze.kernels.keeping import compiled

TOP = 5

LANES = 64
STEP = 4 * LANES
_FOURS = LANES // 4
FLOOR = float32(-1e5)  # used as -inf inside a row: exp of it is 0, and its products stay finite
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
def sums_kept(buffer, n, beta, kept):  # type: ignore[no-untyped-def]
    """Return the same as :func:`sums`, and leave exp(z) in `kept`."""
    total, squares, weighted = float32(0.0), float32(0.0), float32(0.0)
    for j in range(n):
        z = buffer[j] * beta
        e = exp32(z)
        kept[j] = e
        total += e
        e_safe = max(e, _TINY)
        squares += e_safe * e_safe
        weighted += e * z
    return total, squares, weighted


@compiled(fastmath=FAST, forceinline=True)
def count_from(buffer, n, threshold):  # type: ignore[no-untyped-def]
    """Return how many of the first n values are at least a threshold."""
    count = int32(0)
    for j in range(n):
        count = int32(count + int32(buffer[j] >= threshold))
    return count


@compiled(fastmath=FAST, forceinline=True)
def mean_and_spread(buffer, n):  # type: ignore[no-untyped-def]
    """Return mean and standard deviation of the first n values, in float32."""
    first, second = float32(0.0), float32(0.0)
    for j in range(n):
        first += buffer[j]
        second += buffer[j] * buffer[j]
    mean = first / float32(n)
    return mean, float32(math.sqrt(max(second / float32(n) - mean * mean, float32(0.0))))


@compiled(forceinline=True)
def threshold(buffer, n, wanted, guess, spread, gamma):  # type: ignore[no-untyped-def]
    """Return (value, surplus): as many values lie at or above it as are wanted, and a few more.

    The search starts where a normal row would have its quantile, and takes straight lines between counts in
    turn with halves. Where equal values share the last place no value gives the wanted count: it ends when the
    surplus, all of it between the last two values tried, can move GEN's sum by no more than a millionth.
    """
    low, high = float32(FLOOR * float32(2.0)), float32(np.inf)
    count_low, count_high = n, 0
    step = float32(0.25) * float32(spread) + float32(1e-6)
    guess = float32(guess)
    for turn in range(200):
        count = count_from(buffer, n, guess)
        if count >= wanted:
            low = guess
            count_low = count
        else:
            high = guess
            count_high = count
        if count == wanted or (count_low - wanted) * gamma * (high - low) <= 1e-6 * wanted:
            break
        if high == np.inf:
            guess = float32(guess + step)
            step *= float32(2.0)
        elif low < FLOOR:
            guess = max(float32(guess - step), FLOOR)
            step *= float32(2.0)
        else:
            share = float32(0.5)
            if turn % 2 == 0:
                share = float32((wanted - count_high + 0.5) / (count_low - count_high + 1.0))
            guess = float32(high - (high - low) * share)
            if guess <= low or guess >= high:
                break  # all that are left are equal
    return low, count_low - wanted


@compiled(forceinline=True)
def gen_term(z, p, rest, log_total, gamma):  # type: ignore[no-untyped-def]
    """(p (1 - p))^gamma of one class from z = its logit less the top one, and 1 - p; in float64."""
    return math.exp(gamma * (z - log_total + math.log(max(rest, 1e-300)))) if p > 0.0 else 0.0


@compiled(fastmath=FAST, forceinline=True)
def _gen_below(buffer, kept, n, last, log_total, scale, gamma, series):  # type: ignore[no-untyped-def]
    """Sum over values >= last of p^gamma (1 - p)^gamma, the second factor by its Taylor series in p <= 1/6."""
    c1, c2, c3, c4, c5, c6, c7, c8 = (
        series[0], series[1], series[2], series[3], series[4], series[5], series[6], series[7]
    )  # fmt: skip
    total = float32(0.0)
    for j in range(n):
        p = kept[j] * scale
        power = c8 * p + c7
        power = power * p + c6
        power = power * p + c5
        power = power * p + c4
        power = power * p + c3
        power = power * p + c2
        power = power * p + c1
        power = power * p + float32(1.0)
        total += exp32(gamma * (buffer[j] - log_total)) * power * float32(buffer[j] >= last)
    return total


@compiled(fastmath=FAST, forceinline=True)
def _gen_below_steep(buffer, kept, n, last, log_total, scale, gamma):  # type: ignore[no-untyped-def]
    """Sum the same by logarithms, for a gamma above one, whose series is too long."""
    total = float32(0.0)
    for j in range(n):
        rest = float32(1.0) - kept[j] * scale
        total += exp32(gamma * (buffer[j] - log_total + log32(rest))) * float32(buffer[j] >= last)
    return total


def binomial_series(gamma: float) -> NDArray[np.float32]:
    """Return the coefficients of p, p^2 ... p^8 in (1 - p)^gamma; for gamma <= 1 and p <= 1/6 good to 2e-8."""
    steps = np.arange(8)
    return np.cumprod(-(gamma - steps) / (steps + 1)).astype(np.float32)


@compiled(forceinline=True)
def gen_score(buffer, kept, n, values, places, rest, gamma, series, largest, mean, spread):  # type: ignore[no-untyped-def]
    """GEN's sum over the `largest` classes; `kept` holds exp(z), and the top class is off the row already.

    The leading TOP classes are added in their own right, in float64, and taken off the row meanwhile: any other
    has p <= 1/6. 1 - p of the top class is rest / (1 + rest), exact where p itself rounds to 1.
    """
    log_total = math.log1p(rest)
    total = math.exp(gamma * (math.log(max(rest, 1e-300)) - 2.0 * log_total))
    scale = 1.0 / (1.0 + rest)
    for t in range(1, min(min(largest, n), TOP)):
        z = values[t] - values[0]
        p = math.exp(z) * scale
        total += gen_term(z, p, 1.0 - p, log_total, gamma)
        buffer[places[t]] = FLOOR
    wanted = min(largest, n) - TOP
    if wanted > 0:
        last, surplus = float32(FLOOR * float32(0.5)), 0
        if wanted < n - TOP:
            # 1.2816 is the normal quantile of the default's share, 100 of 1,000; only the start of the search.
            guess = float32(mean + float32(1.2816) * spread)
            last, surplus = threshold(buffer, n, wanted, guess, spread, gamma)
        if gamma <= 1.0:
            total += _gen_below(buffer, kept, n, last, float32(log_total), float32(scale), float32(gamma), series)
        else:
            total += _gen_below_steep(buffer, kept, n, last, float32(log_total), float32(scale), float32(gamma))
        if surplus > 0:
            # The last place is shared by several classes: as many of them as fit.
            p = math.exp(last) * scale
            total -= surplus * gen_term(float(last), p, 1.0 - min(p, 0.5), log_total, gamma)
    for t in range(1, min(min(largest, n), TOP)):
        buffer[places[t]] = values[t] - values[0]
    return total
