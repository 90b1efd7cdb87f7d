"""Variances of detection numbers from two sorted columns: one walk each, equal scores together, no pairs formed."""

from __future__ import annotations

from analyze.kernels.keeping import compiled

POWERS = 4


@compiled(nogil=True, cache=True)
def auroc_walk(inside, outside, out):  # type: ignore[no-untyped-def]
    """Write the sums of the first four powers of DeLong's placements of two rising columns, (2, 4).

    Of the ID rows (share of OOD rows below, ties half), then of the OOD rows (share of ID rows above).
    """
    n, m = inside.size, outside.size
    i, j = 0, 0
    out[:] = 0.0
    while i < n or j < m:
        if j >= m or (i < n and inside[i] <= outside[j]):  # noqa: SIM108 - compiled
            value = inside[i]
        else:
            value = outside[j]
        in_before, out_before = i, j
        while i < n and inside[i] == value:
            i += 1
        while j < m and outside[j] == value:
            j += 1
        k_in, k_out = i - in_before, j - out_before
        place_in = (out_before + 0.5 * k_out) / m
        place_out = (n - i + 0.5 * k_in) / n
        power_in, power_out = 1.0, 1.0
        for p in range(POWERS):
            power_in *= place_in
            power_out *= place_out
            out[0, p] += k_in * power_in
            out[1, p] += k_out * power_out


@compiled(nogil=True, cache=True)
def precision_walk(positive, negative, out):  # type: ignore[no-untyped-def]
    """Return the average precision of two rising columns; write the sums of powers of its influence values, (2, 4).

    High scores are taken for positive. Of the positives, then of the negatives.
    """
    n, m = positive.size, negative.size
    out[:] = 0.0
    total = 0.0
    i, j = 0, 0
    by_positive, by_negative = 0.0, 0.0  # what a row of each kind adds to the thresholds at or below it
    while i < n or j < m:
        if j >= m or (i < n and positive[i] <= negative[j]):  # noqa: SIM108 - compiled
            value = positive[i]
        else:
            value = negative[j]
        taken, false = n - i, m - j  # rows at or above this threshold
        k_in, k_out = 0, 0
        while i < n and positive[i] == value:
            k_in += 1
            i += 1
        while j < m and negative[j] == value:
            k_out += 1
            j += 1
        precision = taken / (taken + false)
        square = float(taken + false) * float(taken + false)
        by_positive += k_in * false / square
        by_negative -= k_in * taken / square * (m / n)
        total += k_in * precision
        power_in, power_out = 1.0, 1.0
        for p in range(POWERS):
            power_in *= precision + by_positive
            power_out *= by_negative
            out[0, p] += k_in * power_in
            out[1, p] += k_out * power_out
    return total / n
