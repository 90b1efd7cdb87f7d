"""Decoded rows as they come: a batch, and what it looks like at each geometry of a pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class View:
    """The rows of a batch at one geometry.

    Attributes
    ----------
    pixels
        (n, H, W, 3) uint8; zeros where an image could not be read. Valid until the next batch is asked for.
    valid
        (n,) bool.
    problems
        Row of the dataset and reason of each image that could not be read.
    """

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    problems: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """A run of rows, each image decoded once and made into the pixels of every geometry.

    Attributes
    ----------
    start, stop
        Rows of the dataset.
    views
        One for each geometry, in the order in which they were asked for.
    seconds
        What decoding and resizing took, in its process; 0 where the pixels were kept from an earlier pass.
    """

    start: int
    stop: int
    views: tuple[View, ...]
    seconds: float = 0.0
