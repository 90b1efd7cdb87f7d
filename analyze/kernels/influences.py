"""What each row adds to a detection number, from two sorted columns: one walk each, equal scores together."""

from __future__ import annotations

from analyze.kernels.keeping import compiled


@compiled(nogil=True, cache=True)
def placements(inside, outside, of_inside, of_outside):  # type: ignore[no-untyped-def]
    """Write DeLong's placements of two rising columns, (n,) and (m,).

    Of each ID row the share of OOD rows below, of each OOD row the share of ID rows above; ties count half.
    """
    n, m = inside.size, outside.size
    i, j = 0, 0
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
        place_in = (out_before + 0.5 * (j - out_before)) / m
        place_out = (n - i + 0.5 * (i - in_before)) / n
        for row in range(in_before, i):
            of_inside[row] = place_in
        for row in range(out_before, j):
            of_outside[row] = place_out


@compiled(nogil=True, cache=True)
def precision_parts(positive, negative, of_positive, of_negative):  # type: ignore[no-untyped-def]
    """Write what each row of two rising columns adds to the average precision, (n,) and (m,), each but for a constant.

    High scores are taken for positive. Returns the average precision.
    """
    n, m = positive.size, negative.size
    total = 0.0
    i, j = 0, 0
    by_positive, by_negative = 0.0, 0.0  # what a row of each kind adds to the thresholds at or below it
    while i < n or j < m:
        if j >= m or (i < n and positive[i] <= negative[j]):  # noqa: SIM108 - compiled
            value = positive[i]
        else:
            value = negative[j]
        taken, false = n - i, m - j  # rows at or above this threshold
        first_in, first_out = i, j
        while i < n and positive[i] == value:
            i += 1
        while j < m and negative[j] == value:
            j += 1
        precision = taken / (taken + false)
        square = float(taken + false) * float(taken + false)
        by_positive += (i - first_in) * false / square
        by_negative -= (i - first_in) * taken / square * (m / n)
        total += (i - first_in) * precision
        for row in range(first_in, i):
            of_positive[row] = precision + by_positive
        for row in range(first_out, j):
            of_negative[row] = by_negative
    return total / n
