"""Pillow's resize of an RGB image, compiled, for the part of the result that a crop keeps: the same bytes.

The arithmetic is that of Pillow's ``Resample.c``: weights in float64, rounded to 22 bits; sums in int32; the result of
the first direction rounded to bytes before the second. What differs is what is not computed (rows and columns outside
the crop) and that eight or more bytes are summed at a time: the image is turned so that the direction which is summed
over is never the one that lies side by side in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import int32, uint8
from numpy.typing import NDArray

from closerlook_common.machine_code import kept_kernel

_Bytes = NDArray[np.uint8]
_Words = NDArray[np.uint32]
_Whole = NDArray[np.int32]

_BITS = 22
_BOX, _BILINEAR, _HAMMING, _BICUBIC = 4, 2, 5, 3
"""Pillow's numbers of filters; the other one is Lanczos."""

_TAPS = 4
"""Inputs that are summed at a time; rows of weights are filled up with zeros."""

_TILE = 16


def _compiled(function: Callable[..., Any]) -> Any:
    kernel = kept_kernel(function, error_model="numpy")
    if kernel is None:  # each process would compile it, which takes longer than it saves
        raise RuntimeError("there is no folder of this user's own to keep compiled kernels in")
    return kernel


@_compiled
def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


@_compiled
def _weight(x: float, kind: int) -> float:
    """Return a filter's weight at a distance, term by term as Pillow computes it."""
    if kind == _BOX:
        return 1.0 if -0.5 < x <= 0.5 else 0.0
    if kind not in (_BILINEAR, _HAMMING, _BICUBIC):
        return _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0
    x = abs(x)
    if kind == _BILINEAR:
        return 1.0 - x if x < 1.0 else 0.0
    if kind == _BICUBIC:
        if x < 1.0:
            return (1.5 * x - 2.5) * x * x + 1.0
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
    if x == 0.0 or x >= 1.0:
        return 1.0 if x == 0.0 else 0.0
    x *= math.pi
    return math.sin(x) / x * (0.54 + 0.46 * math.cos(x))


@_compiled
def _weights(n_in: int, n_out: int, first: int, count: int, kind: int, support: float) -> tuple[_Whole, _Whole]:
    """Return (count,) first inputs of the outputs from ``first`` on, and (count, taps) weights, both int32."""
    scale = n_in / n_out
    widened = max(scale, 1.0)
    support = support * widened
    taps = (math.ceil(support) * 2 + _TAPS) // _TAPS * _TAPS
    starts, whole = np.empty(count, np.int32), np.zeros((count, taps), np.int32)
    exact = np.empty(taps)
    narrowed = 1.0 / widened
    for i in range(count):
        centre = (first + i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), n_in)
        total = 0.0
        for x in range(high - low):
            exact[x] = _weight((x + low - centre + 0.5) * narrowed, kind)
            total += exact[x]
        for x in range(high - low):
            share = exact[x] / total if total != 0.0 else exact[x]
            whole[i, x] = int((-0.5 if share < 0 else 0.5) + share * (1 << _BITS))
        starts[i] = low
    return starts, whole


@_compiled
def _sum(lanes: _Bytes, starts: _Whole, weights: _Whole, before: int, first: int, out: _Bytes) -> None:
    """Sum rows of ``lanes`` (n, L), whose first is number ``before``, into ``out`` (m, l), from lane ``first`` on."""
    last, count = lanes.shape[0] - 1, out.shape[1]
    total = np.empty(count, np.int32)
    for i in range(len(starts)):
        total[:] = 1 << (_BITS - 1)
        row, mine = starts[i] - before, weights[i]
        for t in range(0, len(mine), _TAPS):
            k0, k1, k2, k3 = mine[t], mine[t + 1], mine[t + 2], mine[t + 3]
            if k0 == 0 and k1 == 0 and k2 == 0 and k3 == 0:
                continue
            a = lanes[min(row + t, last), first : first + count]
            b = lanes[min(row + t + 1, last), first : first + count]
            c = lanes[min(row + t + 2, last), first : first + count]
            d = lanes[min(row + t + 3, last), first : first + count]
            for j in range(count):
                near = int32(k0 * int32(a[j])) + int32(k1 * int32(b[j]))
                far = int32(k2 * int32(c[j])) + int32(k3 * int32(d[j]))
                total[j] = int32(total[j] + int32(near + far))
        into = out[i]
        for j in range(count):
            into[j] = uint8(min(max(total[j] >> _BITS, 0), 255))


@_compiled
def turn(pixels: _Words, out: _Words) -> None:
    """Write (h, w) uint32 pixels as (w, h)."""
    height, width = pixels.shape
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            for x in range(left, min(left + _TILE, width)):
                for y in range(top, min(top + _TILE, height)):
                    out[x, y] = pixels[y, x]


@_compiled
def across_first(
    turned: _Words, height: int, width: int, top: int, left: int, kind: int, support: float, out: _Bytes
) -> None:
    """Resize to (height, width) and keep what ``out`` (h, w, 3) covers from (top, left) on.

    ``turned`` is the image as (w, h) uint32; Pillow's usual order: first along rows, then along columns.
    """
    rows, columns = out.shape[0], out.shape[1]
    xs, x_weights = _weights(turned.shape[0], width, left, columns, kind, support)
    ys, y_weights = _weights(turned.shape[1], height, top, rows, kind, support)
    low = ys[0]
    high = min(ys[-1] + y_weights.shape[1], turned.shape[1])
    narrow = np.empty((columns, high - low), np.uint32)
    _sum(turned.view(np.uint8), xs, x_weights, 0, 4 * low, narrow.view(np.uint8))
    upright = np.empty((high - low, columns), np.uint32)
    turn(narrow, upright)
    done = np.empty((rows, 4 * columns), np.uint8)
    _sum(upright.view(np.uint8), ys, y_weights, low, 0, done)
    for y in range(rows):
        for x in range(columns):
            for c in range(3):
                out[y, x, c] = done[y, 4 * x + c]


@_compiled
def down_first(
    upright: _Words, height: int, width: int, top: int, left: int, kind: int, support: float, out: _Bytes
) -> None:
    """Do the same of an image as (h, w) uint32, first along columns, then along rows."""
    rows, columns = out.shape[0], out.shape[1]
    ys, y_weights = _weights(upright.shape[0], height, top, rows, kind, support)
    xs, x_weights = _weights(upright.shape[1], width, left, columns, kind, support)
    low = xs[0]
    high = min(xs[-1] + x_weights.shape[1], upright.shape[1])
    short = np.empty((rows, high - low), np.uint32)
    _sum(upright.view(np.uint8), ys, y_weights, 0, 4 * low, short.view(np.uint8))
    turned = np.empty((high - low, rows), np.uint32)
    turn(short, turned)
    done = np.empty((columns, 4 * rows), np.uint8)
    _sum(turned.view(np.uint8), xs, x_weights, low, 0, done)
    for x in range(columns):
        for y in range(rows):
            for c in range(3):
                out[y, x, c] = done[x, 4 * y + c]


def turned(pixels: _Words) -> _Words:
    """Return (h, w) pixels as (w, h)."""
    out = np.empty(pixels.shape[::-1], np.uint32)
    turn(pixels, out)
    return out
