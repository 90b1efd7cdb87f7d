"""Weighted statistics of many bootstrap replicates at once, compiled.

Rows are the outer loop and replicates the inner one: a row's weights lie side by side, so that the inner
loop is vector code and each row is sorted, binned and looked at once for all replicates. Counts are
float32, exact below 2^24; sums are float32 over a few groups and float64 over those, good to about 1e-7.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"contract", "arcp", "nsz"}
_FLUSH = 32
_TINY = np.float32(1e-30)  # nothing drawn yet: 0 / tiny in place of 0 / 0


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def bin_totals(numbers, values, weights, totals):  # type: ignore[no-untyped-def]
    """Add weight x value of each row to its bin: totals (bins, replicates) float64."""
    for i in range(numbers.size):
        total = totals[numbers[i]]
        value = np.float64(values[i])
        row = weights[i]
        for r in range(row.size):
            total[r] += value * np.float64(row[r])


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _add_row(weight, more):  # type: ignore[no-untyped-def]
    for r in range(more.size):
        more[r] += np.float32(weight[r])


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _flush(small, total):  # type: ignore[no-untyped-def]
    for r in range(small.size):
        total[r] += np.float64(small[r])
        small[r] = 0


# Each loop below touches few arrays, and chooses by a product with 0 or 1: many arrays or a branch in a
# loop, and it is no longer vector code. All these counts are whole numbers, so the products are exact.


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _outside_step(more, n_in, n_ood, last, hits, more_hits, alarms, false_ood, area, precision):  # type: ignore[no-untyped-def]
    """Take in the OOD rows of a tie group."""
    for r in range(hits.size):
        area[r] += more[r] * (hits[r] + hits[r] + more_hits[r])
    for r in range(hits.size):
        left = n_ood - alarms[r]
        precision[r] += more[r] * left / (left + (n_in - hits[r]) + _TINY)
    for r in range(hits.size):
        # Flagged are this group and all below: the lowest group that still holds enough OOD rows stays.
        false_ood[r] += np.float32(alarms[r] <= last) * (n_in - hits[r] - false_ood[r])
    for r in range(hits.size):
        alarms[r] += more[r]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _inside_step(more, need, hits, alarms, false_id, precision):  # type: ignore[no-untyped-def]
    """Take in the ID rows of a tie group, after its OOD rows."""
    for r in range(hits.size):
        # The false positives are those of the group that reaches the threshold: the last one begun below it.
        false_id[r] += np.float32(hits[r] < need) * (alarms[r] - false_id[r])
    for r in range(hits.size):
        now = hits[r] + more[r]
        precision[r] += more[r] * now / (now + alarms[r] + _TINY)
        hits[r] = now


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def detection_totals(order, starts, n_id, id_weights, ood_weights, need_id, need_ood, out):  # type: ignore[no-untyped-def]
    """Walk from the highest score down, equal scores together.

    ``order`` numbers ID rows below ``n_id`` and OOD rows from there; ``starts`` are the beginnings of tie
    groups and the end. ``out`` (5, replicates): area, false positives at either threshold, average
    precision of either side.
    """
    n_replicates = out.shape[1]
    n_ood = np.float32(order.size - n_id)
    n_in = np.float32(n_id)
    last = np.float32(n_ood - need_ood)
    hits = np.zeros(n_replicates, np.float32)
    alarms = np.zeros(n_replicates, np.float32)
    more_hits = np.zeros(n_replicates, np.float32)
    more_alarms = np.zeros(n_replicates, np.float32)
    false_id = np.zeros(n_replicates, np.float32)
    area = np.zeros(n_replicates, np.float32)
    precision_id = np.zeros(n_replicates, np.float32)
    precision_ood = np.zeros(n_replicates, np.float32)
    totals = np.zeros((3, n_replicates), np.float64)
    false_ood = np.full(n_replicates, n_in, np.float32)
    for g in range(starts.size - 1):
        more_hits[:] = 0
        more_alarms[:] = 0
        inside = 0
        for k in range(starts[g], starts[g + 1]):
            row = order[k]
            if row < n_id:
                inside += 1
                _add_row(id_weights[row], more_hits)
            else:
                _add_row(ood_weights[row - n_id], more_alarms)
        if inside < starts[g + 1] - starts[g]:
            _outside_step(more_alarms, n_in, n_ood, last, hits, more_hits, alarms, false_ood, area, precision_ood)
        if inside > 0:
            _inside_step(more_hits, need_id, hits, alarms, false_id, precision_id)
        if g % _FLUSH == _FLUSH - 1:
            _flush(area, totals[0])
            _flush(precision_id, totals[1])
            _flush(precision_ood, totals[2])
    _flush(area, totals[0])
    _flush(precision_id, totals[1])
    _flush(precision_ood, totals[2])
    for r in range(n_replicates):
        out[0, r] = totals[0, r] / (2 * np.float64(n_in) * np.float64(n_ood))
        out[1, r] = false_id[r] / np.float64(n_ood)
        out[2, r] = false_ood[r] / np.float64(n_in)
        out[3, r] = totals[1, r] / np.float64(n_in)
        out[4, r] = totals[2, r] / np.float64(n_ood)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _selective_step(more, wrong, answered, errors, risk, now, area, joint):  # type: ignore[no-untyped-def]
    """Take in a tie group: its weights, and how many of them are wrong."""
    for r in range(answered.size):
        now[r] = (errors[r] + wrong[r]) / (answered[r] + more[r] + _TINY)
    for r in range(answered.size):
        before = risk[r] + np.float32(answered[r] == 0) * now[r]
        area[r] += more[r] * (before + now[r])
    for r in range(answered.size):
        joint[r] += more[r] * (errors[r] + errors[r] + wrong[r])
    for r in range(answered.size):
        errors[r] += wrong[r]
    for r in range(answered.size):
        answered[r] += more[r]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def selective_totals(order, starts, wrong, weights, out):  # type: ignore[no-untyped-def]
    """Walk from the most confident row down, equal ones together; out (3, replicates): AURC, AUGRC, error."""
    n_replicates = out.shape[1]
    answered = np.zeros(n_replicates, np.float32)
    errors = np.zeros(n_replicates, np.float32)
    risk = np.zeros(n_replicates, np.float32)
    now = np.zeros(n_replicates, np.float32)
    more = np.zeros(n_replicates, np.float32)
    more_errors = np.zeros(n_replicates, np.float32)
    area = np.zeros(n_replicates, np.float32)
    joint = np.zeros(n_replicates, np.float32)
    totals = np.zeros((2, n_replicates), np.float64)
    for g in range(starts.size - 1):
        more[:] = 0
        more_errors[:] = 0
        for k in range(starts[g], starts[g + 1]):
            _add_row(weights[order[k]], more)
            if wrong[order[k]]:
                _add_row(weights[order[k]], more_errors)
        _selective_step(more, more_errors, answered, errors, risk, now, area, joint)
        risk, now = now, risk
        if g % _FLUSH == _FLUSH - 1:
            _flush(area, totals[0])
            _flush(joint, totals[1])
    _flush(area, totals[0])
    _flush(joint, totals[1])
    n = np.float64(order.size)
    for r in range(n_replicates):
        out[0, r] = totals[0, r] / (2 * n)
        out[1, r] = totals[1, r] / (2 * n * n)
        out[2, r] = errors[r] / n
