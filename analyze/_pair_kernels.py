"""The five detection numbers of two sets of scores by one walk over the sorted scores, equal scores together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze._fastmath import compiled


@compiled(nogil=True, cache=True)
def _walk(inside, outside, need_in, need_out, out):  # type: ignore[no-untyped-def]
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


NAMES = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")


def detection_numbers(id_scores: NDArray[Any], ood_scores: NDArray[Any], *, tpr: float = 0.95) -> dict[str, float]:
    """Return AUROC, FPR at 95 % TPR under both conventions, and AUPR (average precision) of either side.

    Equal to the functions of ``analyze.metrics`` with their defaults, several times faster.

    Parameters
    ----------
    id_scores, ood_scores
        (n,) and (m,) finite scores, at least one each, higher = more in-distribution.
    tpr
        Recall at which the FPR is taken; the names keep 95.
    """
    out = np.empty(5)
    needs = [int(np.searchsorted(np.arange(1, s.size + 1) / s.size, tpr)) + 1 for s in (id_scores, ood_scores)]
    _walk(np.sort(id_scores), np.sort(ood_scores), needs[0], needs[1], out)
    return dict(zip(NAMES, out.tolist(), strict=True))
