"""JPEGs with the bytes, and so the decoding cost, of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT = 2000
"""Pictures beyond these are the same again: decoding costs the same, making them would not."""


def photographs(root: Path, n: int, kept: Path) -> None:
    """Link n JPEGs of 500 x 375 with the detail, and so the bytes and the decoding cost, of photographs."""
    (root / "all").mkdir(parents=True)
    kept.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        name = f"{index % DISTINCT:05}.jpg"
        if not (kept / name).exists():
            photograph(np.random.default_rng(index)).save(kept / name, quality=95)
        (root / "all" / f"{index:06}.jpg").symlink_to((kept / name).absolute())


def photograph(rng: np.random.Generator) -> Image.Image:
    """Return a picture of coarse and fine detail."""
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((500, 375)), np.float32)
        for side in (4, 16, 64, 256)
    ]
    pixels = sum(weight * layer for weight, layer in zip((0.4, 0.2, 0.2, 0.2), layers, strict=True))
    return Image.fromarray(np.asarray(pixels, np.uint8))
