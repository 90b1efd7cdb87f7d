"""Matrix products whose every element is the same sum in the same order, wherever its row lies.

A BLAS does not promise that: OpenBLAS's float32 kernel rounds a row differently by its position in the call, so that a
score would depend on how a caller cuts rows into blocks. Here each element is one chain of fused multiply-adds over k
(restarted every ``DEPTH`` terms), on any number of threads and any machine; as fast as a BLAS on 256-bit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PANEL_ROWS = 6
"""Rows of a register tile: 6 x 2 vectors of sums leave room for the operands in 16 registers."""

DEPTH = 384
"""Terms of a chain: a panel of the right side of that depth stays in the first-level cache."""

BLOCK_ROWS = 42
"""Rows that one thread packs at a time; a multiple of ``PANEL_ROWS``."""


@cache
def panel_width(dtype: np.dtype[Any]) -> int:
    """Return the columns of a register tile: two vectors of the machine's (512 bits where there are such, else 256)."""
    import llvmlite.binding as llvm

    bits = 512 if llvm.get_host_cpu_features().get("avx512f", False) else 256
    return 2 * bits // (8 * dtype.itemsize)


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
    def of(matrix: NDArray[np.floating[Any]]) -> Right:
        """Cut up a matrix (K, N); float32, or float64 if it is float64."""
        matrix = np.asarray(matrix)
        dtype = np.dtype(np.float64 if matrix.dtype == np.float64 else np.float32)
        width = panel_width(dtype)
        k, n = matrix.shape
        count = -(-n // width)
        panels = np.zeros((count, k, width), dtype)
        for p in range(count):
            part = matrix[:, p * width : (p + 1) * width]
            panels[p, :, : part.shape[1]] = part
        return Right(panels, n)

    def column(self, places: NDArray[np.integer[Any]]) -> NDArray[np.floating[Any]]:
        """Return columns by index, (len(places), K)."""
        width = self.panels.shape[2]
        return self.panels[places // width, :, places % width]


def multiply(left: NDArray[Any], right: Right) -> NDArray[Any]:
    """Return ``left @ right``.

    Parameters
    ----------
    left : ndarray of shape (n, K)
        Converted to the right side's type.
    right
        The prepared right side.

    Returns
    -------
    ndarray of shape (n, N)
        Of the right side's type. A row depends on nothing but that row, to the last bit.
    """
    from analyze.detectors._product_kernel import multiply_panels

    n, k = left.shape
    if k != right.panels.shape[1]:
        raise ValueError(f"product of widths {k} and {right.panels.shape[1]}")
    dtype = right.panels.dtype
    rows = -(-n // PANEL_ROWS) * PANEL_ROWS
    if rows == n:
        padded = np.ascontiguousarray(left, dtype=dtype)
    else:
        padded = np.zeros((rows, k), dtype)
        padded[:n] = left
    out = np.zeros((rows, right.panels.shape[0] * right.panels.shape[2]), dtype)
    multiply_panels(padded, right.panels, out, DEPTH, BLOCK_ROWS)
    return out[:n, : right.columns]
