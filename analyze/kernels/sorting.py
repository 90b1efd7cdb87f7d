"""Sorting scores by their bits: linear in the number of rows, and the same order on every machine.

A float's bits, read as a whole number, rise with the float once those of negative ones are turned round. Eleven
bits a pass put rows into order; a pass whose bits are the same in all rows is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.kernels.keeping import compiled

_MASK = np.uint32(2047)
_BITS = 11


@compiled(nogil=True, cache=True)
def _sort(keys, spare_keys, rows, spare_rows, n_passes):  # type: ignore[no-untyped-def]
    """Sort keys with their rows, equal keys in the order they came in; returns the two arrays they end up in."""
    n = keys.size
    counts = np.zeros((n_passes, 2048), np.int64)
    for i in range(n):
        for p in range(n_passes):
            counts[p, (keys[i] >> np.uint32(_BITS * p)) & _MASK] += 1
    for p in range(n_passes):
        count = counts[p]
        shift = np.uint32(_BITS * p)
        if count[(keys[0] >> shift) & _MASK] == n:
            continue
        total = 0
        for j in range(count.size):
            here = count[j]
            count[j] = total
            total += here
        for i in range(n):
            bucket = (keys[i] >> shift) & _MASK
            place = count[bucket]
            count[bucket] = place + 1
            spare_keys[place] = keys[i]
            spare_rows[place] = rows[i]
        keys, spare_keys = spare_keys, keys
        rows, spare_rows = spare_rows, rows
    return keys, rows


def rising_order(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int32], NDArray[np.floating[Any]]]:
    """Sort finite numbers, equal ones in the order they came in.

    Parameters
    ----------
    values
        (n,) float32 or float64 without NaN; 0 and -0 are equal.

    Returns
    -------
    tuple
        (n,) int32 rows from the smallest value, and (n,) the sorted values; what ``np.argsort(kind="stable")``
        gives, several times faster.
    """
    rows = np.arange(values.size, dtype=np.int32)
    if values.size < 2:
        return rows, values.copy()
    if values.dtype == np.float32:
        single = (values + np.float32(0)).view(np.int32)  # -0 + 0 is 0
        keys, rows = _sort(*_spares(_turn(single).view(np.uint32), rows), 3)
        return rows, _turn_back(keys.view(np.int32)).view(np.float32)
    double = (values + np.float64(0)).view(np.int64)
    keys, rows = _sort(*_spares(_turn(double).view(np.uint64), rows), 6)
    return rows, _turn_back(keys.view(np.int64)).view(np.float64)


def _spares(keys: NDArray[Any], rows: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
    return keys, np.empty_like(keys), rows, np.empty_like(rows)


def _turn(bits: NDArray[Any]) -> NDArray[Any]:
    """Negative floats: all bits turned round; others: the sign bit alone. Read without sign they then rise."""
    return np.where(bits < 0, ~bits, bits ^ np.iinfo(bits.dtype).min)


def _turn_back(bits: NDArray[Any]) -> NDArray[Any]:
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).min, ~bits)
