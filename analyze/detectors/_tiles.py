"""The sizes of a register tile on this machine, which the packing of a product and its compiled part agree on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def _wide() -> bool:
    """Whether the machine has vectors of 512 bits, and twice as many registers for them."""
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("avx512f", False))


def tile_rows() -> int:
    """Return the rows of a register tile: with two vectors of sums a row the operands still have registers left."""
    return 12 if _wide() else 6


@cache
def panel_width(dtype: np.dtype[Any]) -> int:
    """Return the columns of a register tile: two vectors of the machine's (512 bits where there are such, else 256)."""
    return 2 * (512 if _wide() else 256) // (8 * dtype.itemsize)
