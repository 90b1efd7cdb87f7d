"""Matrix products whose every element is the same sum in the same order, wherever its row lies.

A BLAS does not promise that: OpenBLAS's float32 kernel rounds a row differently by its position in the call, so that a
score would depend on how a caller cuts rows into blocks. Here each element is one chain of fused multiply-adds over k,
on any number of threads and any machine; about as fast as a BLAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors._tiles import panel_width, tile_rows

DEPTH = 384
"""Terms of a chain that are added at a time: what is read of the right side stays in the near caches."""

BLOCK_ROWS = 84
"""Most rows that one thread packs at a time: of that depth both stay in the second-level cache."""


@dataclass(frozen=True, eq=False)
class Right:
    """The right side of products, (K, N), cut into panels of columns.

    Attributes
    ----------
    panels
        (P, K, width), the last panel padded with zeros.
    columns
        N.
    """

    panels: NDArray[np.floating[Any]]
    columns: int

    @staticmethod
    def of(matrix: NDArray[np.floating[Any]], *, half: bool = False) -> Right:
        """Cut up a matrix (K, N): float32, or float64 if it is float64; ``half`` keeps the panels in float16."""
        matrix = np.asarray(matrix)
        dtype = np.dtype(np.float64 if matrix.dtype == np.float64 else np.float32)
        width = panel_width(dtype)
        dtype = np.dtype(np.float16) if half else dtype
        k, n = matrix.shape
        count = -(-n // width)
        panels = np.zeros((count, k, width), dtype)
        for p in range(count):
            part = matrix[:, p * width : (p + 1) * width]
            panels[p, :, : part.shape[1]] = part
        return Right(panels, n)


def multiply(left: NDArray[Any], right: Right, *, scratch: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return ``left @ right``.

    Parameters
    ----------
    left : ndarray of shape (n, K)
        Converted to the right side's type.
    right
        The prepared right side.
    scratch : ndarray of shape (n N or more,)
        Of the right side's type; the result lies in it. Memory of its own where None.

    Returns
    -------
    ndarray of shape (n, N)
        Of the right side's type. A row depends on nothing but that row, to the last bit.
    """
    from numba import get_num_threads

    from analyze.detectors._product_kernel import multiply_panels

    n, k = left.shape
    if k != right.panels.shape[1]:
        raise ValueError(f"product of widths {k} and {right.panels.shape[1]}")
    if not k:
        return np.zeros((n, right.columns), right.panels.dtype)
    left = np.ascontiguousarray(left, dtype=right.panels.dtype)
    if scratch is None:
        scratch = np.empty(n * right.columns, right.panels.dtype)
    out = scratch[: n * right.columns].reshape(n, right.columns)
    step = tile_rows()
    block = min(BLOCK_ROWS, -(-n // (get_num_threads() * step)) * step)
    multiply_panels(left, right.panels, out, DEPTH, max(step, block))
    return out
