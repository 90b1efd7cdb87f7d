"""Weighted detection numbers of many bootstrap replicates at once: one walk over ID and OOD scores together.

How replicates are laid out and rows asked for is described in ``ranking``.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64

from analyze.kernels.fastmath import fetch_ahead
from analyze.kernels.keeping import compiled
from analyze.kernels.ranking import AHEAD, WIDE, add_weights, load_weights

_FAST = {"contract", "arcp", "nsz"}
_FLUSH = 32
_TINY = float32(1e-30)  # nothing drawn yet: 0 / tiny in place of 0 / 0
_SMALL = 0xFFFFFFF

# Weights of a group's ID and OOD rows; both above the group; false positives at either threshold; area and
# average precisions, those since the last flush.
_IN, _OUT, _HITS, _ALARMS, _FALSE_ID, _FALSE_OOD, _AREA, _PRECISION_IN, _PRECISION_OUT, _SLOTS = range(10)


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _outside_step(s, base, n_in, n_ood, last):  # type: ignore[no-untyped-def]
    """Take in the OOD rows of a group that has no ID row."""
    base = base & _SMALL
    for r in range(WIDE):
        more, hits, alarms = s[base + _OUT * WIDE + r], s[base + _HITS * WIDE + r], s[base + _ALARMS * WIDE + r]
        s[base + _AREA * WIDE + r] += more * (hits + hits)
        left, flagged = n_ood - alarms, n_in - hits
        s[base + _PRECISION_OUT * WIDE + r] += more * left / (left + flagged + _TINY)
        # Flagged are this group and all below: the lowest group that still holds enough OOD rows stays.
        s[base + _FALSE_OOD * WIDE + r] = flagged if alarms <= last else s[base + _FALSE_OOD * WIDE + r]
        s[base + _ALARMS * WIDE + r] = alarms + more


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _inside_step(s, base, need):  # type: ignore[no-untyped-def]
    """Take in the ID rows of a group, after its OOD rows."""
    base = base & _SMALL
    for r in range(WIDE):
        more, hits, alarms = s[base + _IN * WIDE + r], s[base + _HITS * WIDE + r], s[base + _ALARMS * WIDE + r]
        now = hits + more
        # The false positives are those of the group that reaches the threshold: the last one begun below it.
        s[base + _FALSE_ID * WIDE + r] = alarms if hits < need else s[base + _FALSE_ID * WIDE + r]
        s[base + _PRECISION_IN * WIDE + r] += more * now / (now + alarms + _TINY)
        s[base + _HITS * WIDE + r] = now


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _tied_pairs(s, base):  # type: ignore[no-untyped-def]
    """Add the pairs of a group's ID and OOD rows, which count half."""
    base = base & _SMALL
    for r in range(WIDE):
        s[base + _AREA * WIDE + r] += s[base + _OUT * WIDE + r] * s[base + _IN * WIDE + r]


@compiled(nogil=True, fastmath=_FAST, forceinline=True)
def _flush(s, totals, n_blocks):  # type: ignore[no-untyped-def]
    for b in range(n_blocks):
        base = (b * _SLOTS * WIDE) & _SMALL
        at = (b * WIDE) & _SMALL
        for t in range(3):
            for r in range(WIDE):
                totals[t, at + r] += float64(s[base + (_AREA + t) * WIDE + r])
                s[base + (_AREA + t) * WIDE + r] = float32(0.0)


@compiled(nogil=True, cache=True, fastmath=_FAST)
def detection_totals(order, starts, id_weights, ood_weights, need_id, need_ood, out):  # type: ignore[no-untyped-def]
    """Walk from the highest score down, equal scores together.

    ``order`` numbers ID rows below n and OOD rows from there; ``starts`` are the beginnings of tie groups and
    the end. ``out`` (5, R): AUROC, false-positive rates at either threshold, average precision of either side.
    """
    n_id, n_replicates = id_weights.shape
    n_blocks = (n_replicates + WIDE - 1) // WIDE
    n_in, n_ood = float32(n_id), float32(order.size - n_id)
    last = float32(n_ood - need_ood)
    s = np.zeros(n_blocks * _SLOTS * WIDE, np.float32)
    totals = np.zeros((3, n_blocks * WIDE))
    for b in range(n_blocks):
        for r in range(WIDE):
            s[(b * _SLOTS + _FALSE_OOD) * WIDE + r] = n_in
    for g in range(starts.size - 1):
        first, stop = starts[g], starts[g + 1]
        # ID rows of a group come before its OOD rows.
        split = first
        while split < stop and order[split] < n_id:
            split += 1
        ahead = int64(order[min(first + AHEAD, order.size - 1)])
        for b in range(n_blocks):
            base = (b * _SLOTS * WIDE) & _SMALL
            if ahead < n_id:
                fetch_ahead(id_weights, ahead, b * WIDE)
            else:
                fetch_ahead(ood_weights, ahead - n_id, b * WIDE)
            if split > first:
                load_weights(id_weights, order[first], b, s, base + _IN * WIDE)
                for k in range(first + 1, split):
                    add_weights(id_weights, order[k], b, s, base + _IN * WIDE)
            if stop > split:
                load_weights(ood_weights, order[split] - n_id, b, s, base + _OUT * WIDE)
                for k in range(split + 1, stop):
                    add_weights(ood_weights, order[k] - n_id, b, s, base + _OUT * WIDE)
                if split > first:
                    _tied_pairs(s, base)
                _outside_step(s, base, n_in, n_ood, last)
            if split > first:
                _inside_step(s, base, need_id)
        if g % _FLUSH == _FLUSH - 1:
            _flush(s, totals, n_blocks)
    _flush(s, totals, n_blocks)
    for b in range(n_blocks):
        for r in range(min(WIDE, n_replicates - b * WIDE)):
            base, at = b * _SLOTS * WIDE + r, b * WIDE + r
            out[0, at] = totals[0, at] / (2.0 * float64(n_in) * float64(n_ood))
            out[1, at] = float64(s[base + _FALSE_ID * WIDE]) / float64(n_ood)
            out[2, at] = float64(s[base + _FALSE_OOD * WIDE]) / float64(n_in)
            out[3, at] = totals[1, at] / float64(n_in)
            out[4, at] = totals[2, at] / float64(n_ood)
