"""Sums of detectors are the same, bit for bit, by a kernel that was just compiled and by the same one from the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import hashlib
import numpy as np
from analyze.detectors import _row_kernels as kernels

rng = np.random.default_rng(0)
for width in (768, 301):
    values, weights = rng.normal(size=(40, width)).astype("f4"), rng.normal(size=width).astype("f4")
    table, chosen, top = rng.normal(size=(3, width)).astype("f4"), rng.integers(0, 3, 40), values.max(axis=1)
    out = [np.empty(40, "f4") for _ in range(8)]
    kernels.feature_sums(values, *out[:3])
    kernels.square_sums(values, width - 7, out[3])
    kernels.weighted_squares(values, weights, *out[4:6])
    kernels.row_dots(values, table, chosen, out[6])
    kernels.gap_sums(values, top, table, chosen, out[7])
    print(*(hashlib.sha256(found.tobytes()).hexdigest()[:8] for found in out))
"""


def test_the_first_run_gives_what_later_ones_give(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    printed = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
        printed.append(done.stdout)
    assert list((tmp_path / "kept").rglob("*.nbc")), "the second run took what the first kept"
    assert printed[0] == printed[1]
    assert len(printed[0].split()) == 16
