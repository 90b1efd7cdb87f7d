"""Encode logits as row-centred float16: the top class of each row is exactly 0, the centre is kept as float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError

LARGEST = np.float16(65504.0)
SMALLEST = np.float16(2.0**-24)
"""Largest and smallest positive float16."""

_SIZE_BITS, _INFINITY_BITS, _MINUS_ZERO_BITS = np.uint16(0x7FFF), np.uint16(0x7C00), np.uint16(0x8000)


class Centred(NamedTuple):
    """Encoded rows: ``logits`` (n, C) float16 and ``centers`` (n,) float32."""

    logits: NDArray[np.float16]
    centers: NDArray[np.float32]


def encode(logits: NDArray[np.floating], members: NDArray[np.integer] | None = None, *, first_row: int = 0) -> Centred:
    """Centre rows of logits and round them to float16.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Float16, float32 or float64 (rounded to float32 first).
    members : ndarray of shape (k,), optional
        Classes that count: the centre is the maximum over these. All classes when None.
    first_row
        Number of the first row, for error messages.

    Returns
    -------
    Centred
        With c the row's maximum over ``members``, every value is ``float16(logit - c)``, except that a
        difference other than 0 never becomes 0 (it becomes +-2**-24), and that a finite one never becomes
        infinite (it is clamped to +-65504).

    Raises
    ------
    UserError
        A row holds +inf, or has no finite logit among the members. A row of NaN only stays NaN; a row that
        mixes NaN with numbers is refused.

    Notes
    -----
    Among the members: the arg-max never changes, the classes that tie for the top are the same before and
    after, and order is kept (x <= y before implies x <= y after; distinct values below the top may become
    equal). The error of ``decode`` is at most 2**-11 of the distance from the top, half an ulp of float32
    besides, as long as that distance is between 6.2e-5 and 65504. Decoded in float32 the top keeps its place
    where the centre is below 2**39. -inf stays -inf: a probability of 0.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(logits, dtype=np.float32)
    kept = values if members is None else values[:, members]
    centers = kept.max(axis=1)
    if not np.isfinite(centers).all() or not np.isfinite(values.sum(axis=1, dtype=np.float64)).all():
        _refuse(values, centers, first_row)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        shifted = values - centers[:, None]
        rounded = shifted.astype(np.float16)
        # numpy computes with float16 one number at a time, so what is tested here is tested on the bits.
        bits = rounded.view(np.uint16)
        size = bits & _SIZE_BITS
        vanished = (size == 0) & (shifted != 0)
        if vanished.any():
            rounded[vanished] = np.copysign(SMALLEST, shifted[vanished])
        burst = size == _INFINITY_BITS
        if burst.any():
            burst &= np.isfinite(values)
            rounded[burst] = np.copysign(LARGEST, shifted[burst])
        bits[bits == _MINUS_ZERO_BITS] = 0  # one bit pattern for the top
    return Centred(rounded, centers)


def _refuse(values: NDArray[np.float32], centers: NDArray[np.float32], first_row: int) -> None:
    nan = np.isnan(values)
    mixed = nan.any(axis=1) & ~nan.all(axis=1)
    for bad, what in (
        (np.isposinf(values).any(axis=1), "holds a logit of +inf"),
        (mixed, "holds NaN among numbers"),
        (np.isneginf(centers), "has no finite logit among the classes that count"),
    ):
        if bad.any():
            raise UserError(f"row {first_row + int(np.flatnonzero(bad)[0])} {what}; mark the row invalid or fix it")


def decode(logits: NDArray[np.float16], centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode row-centred logits.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Centred float16 rows.
    centers : ndarray of shape (n,)
        Their centres.

    Returns
    -------
    ndarray of shape (n, C)
        Float32. The row's top is exact.
    """
    values = logits.astype(np.float32)
    values += centers[:, None]
    return values


def kept_classes(
    class_mask: tuple[int, ...] | None, class_map: tuple[tuple[int, ...], ...] | None
) -> NDArray[np.int64] | None:
    """Return the classes that rows are centred over, or None for all.

    Parameters
    ----------
    class_mask, class_map
        Of the dataset's card. Where both are given, the members of the map that the mask keeps.
    """
    members = None if class_mask is None else set(class_mask)
    if class_map is not None:
        mapped = {index for group in class_map for index in group}
        members = mapped if members is None else members & mapped
    return None if members is None else np.array(sorted(members), dtype=np.int64)
