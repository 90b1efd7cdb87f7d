"""How the views of an image are drawn, and how many are kept: what the identity of a store with views depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARRAY = "views"
"""What these arrays are called by ``extract --arrays``."""

VIEWS = 64
"""Views of an image; the first is the model's own preprocessing."""

CHOSEN = 6
"""Views that are kept: those whose softmax has the lowest entropy."""

SEED = 0

SCALE = (0.08, 1.0)
"""Area of a crop, as a part of the image's."""

RATIO = (3 / 4, 4 / 3)
"""Width of a crop divided by its height."""

FLIP = 0.5
"""Probability that a crop is mirrored left to right."""

TAG = f"views:{VIEWS}:{CHOSEN}:seed={SEED}:scale=0.08-1:ratio=3/4-4/3:flip=1/2"
"""In the identity of a store with views."""

DETAILS: Mapping[str, Any] = {"of": VIEWS, "seed": SEED, "scale": list(SCALE), "ratio": list(RATIO), "flip": FLIP}
"""What a store's details say of its views."""
