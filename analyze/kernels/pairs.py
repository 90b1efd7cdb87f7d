"""The five detection numbers of two sets of scores by one walk over the sorted scores, equal scores together."""

from __future__ import annotations

from analyze.kernels.keeping import compiled


@compiled(nogil=True, cache=True)
def walk(inside, outside, need_in, need_out, out):  # type: ignore[no-untyped-def]
    """Write the five numbers of two rising columns; ``need_in`` and ``need_out`` rows make the recall."""
    n, m = inside.size, outside.size
    i, j = n - 1, m - 1
    hits, alarms = 0, 0  # accepted so far: ID, OOD
    area = 0  # twice the number of pairs in order, ties once
    precision_in, precision_out = 0.0, 0.0
    found = False
    while i >= 0 or j >= 0:
        if j < 0 or (i >= 0 and inside[i] >= outside[j]):  # noqa: SIM108 - compiled
            value = inside[i]
        else:
            value = outside[j]
        more_in, more_out = 0, 0
        while i >= 0 and inside[i] == value:
            more_in += 1
            i -= 1
        while j >= 0 and outside[j] == value:
            more_out += 1
            j -= 1
        # Flagged as OOD: this group and all below.
        flagged_out, flagged_in = m - alarms, n - hits
        precision_out += more_out * (flagged_out / (flagged_out + flagged_in))
        if flagged_out >= need_out:
            out[2] = flagged_in / n
        hits += more_in
        alarms += more_out
        area += more_in * (2 * (m - alarms) + more_out)
        precision_in += more_in * (hits / (hits + alarms))
        if not found and hits >= need_in:
            out[1] = alarms / m
            found = True
    out[0] = area / (2.0 * n * m)
    out[3] = precision_in / n
    out[4] = precision_out / m
