"""One decoded image into the pixels of many geometries: by Pillow, or by the same arithmetic compiled.

Compiled kernels take a second to load, and the very first time on a machine some more to compile. So a process begins
with Pillow and goes over to them when it has resized for so long that they pay. They are only used where this very
Pillow, on a few images that are resized both ways first, gives the same bytes.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extract.passes.pillow_memory import words_of
from extract.preprocess import INTERPOLATIONS, Geometry

if TYPE_CHECKING:
    from types import ModuleType

WORTH_SECONDS = 3.0
"""On a core that Pillow resized before the kernels are loaded."""

_SUPPORTS = {"box": 0.5, "bilinear": 1.0, "hamming": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_MACHINES = ("x86_64", "AMD64")
"""Elsewhere compilers may round a product and a sum at once, in Pillow or here."""


class Shape(Protocol):
    """Makes an image into the pixels of a geometry; what cannot be resized raises as `Geometry` does."""

    def __call__(self, geometry: Geometry, out: NDArray[np.uint8]) -> None:
        """Write the pixels."""
        ...


class _Timed:
    """Pillow's resize, timed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, image: Image.Image) -> Shape:
        def shape(geometry: Geometry, out: NDArray[np.uint8]) -> None:
            begun = time.thread_time()
            out[...] = geometry(image)
            self.seconds += time.thread_time() - begun

        return shape


class Kernels:
    """The compiled resize, for images one after the other.

    Parameters
    ----------
    kernels
        The module of kernels.
    tall_down_first
        Whether this Pillow takes columns first of images that get much shorter (since 13.0).
    """

    def __init__(self, kernels: ModuleType, *, tall_down_first: bool) -> None:
        self._kernels, self._tall_down_first = kernels, tall_down_first

    def __call__(self, image: Image.Image) -> Shape:
        """Return what shapes an RGB image."""
        if image.mode != "RGB":
            return _Timed()(image)
        words, owner = words_of(image)
        turned: list[NDArray[np.uint32]] = []

        def shape(geometry: Geometry, out: NDArray[np.uint8], _owner: object = owner) -> None:
            window = geometry.window(image.height, image.width)
            support = _SUPPORTS.get(geometry.interpolation)
            if window is None or support is None or type(geometry) is not Geometry:
                out[...] = geometry(image)
                return
            (height, width), (top, left) = window
            if min(height, width) <= 0:
                raise ValueError("height and width must be > 0")
            rest = height, width, top, left, int(INTERPOLATIONS[geometry.interpolation]), support, out
            if self._is_down_first(image, height, width):
                self._kernels.down_first(words, *rest)
                return
            if not turned:
                turned.append(self._kernels.turned(words))
            self._kernels.across_first(turned[0], *rest)

        return shape

    def _is_down_first(self, image: Image.Image, height: int, width: int) -> bool:
        shorter, narrower = image.height - height, image.width - width
        return self._tall_down_first and shorter > 0 and shorter > 2 * narrower

    def agree(self) -> bool:
        """Return whether this Pillow gives the same bytes, of a few sizes with each filter and in both orders."""
        rng = np.random.default_rng(0)
        for height, width, resized in ((61, 47, (29, 23)), (60, 23, (21, 40)), (40, 31, (47, 50)), (90, 40, (30, 13))):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            shape = self(image)
            for name in _SUPPORTS:
                geometry = Geometry("squash", resized, (resized[0] - 3, resized[1] - 2), name)
                out = np.zeros((*geometry.crop, 3), np.uint8)
                shape(geometry, out)
                if not np.array_equal(out, geometry(image)):
                    return False
        return True


def load_kernels() -> Kernels | None:
    """Return the kernels, or None where this machine or this Pillow is another than they were written after."""
    if platform.machine() not in _MACHINES:
        return None
    try:
        from extract.passes import resampling
    except (ImportError, RuntimeError):  # there is no folder to keep compiled kernels in
        return None
    tried = (Kernels(resampling, tall_down_first=tall) for tall in (True, False))
    return next((kernels for kernels in tried if kernels.agree()), None)


class Shaper:
    """Makes images into pixels: with Pillow first, with the kernels when they pay.

    Parameters
    ----------
    worth
        Seconds on a core that Pillow resizes before the kernels are loaded.
    """

    def __init__(self, worth: float = WORTH_SECONDS) -> None:
        self._worth, self._pillow = worth, _Timed()
        self._kernels: Kernels | None = None
        self._tried = False

    def __call__(self, image: Image.Image) -> Shape:
        """Return what shapes an RGB image."""
        if not self._tried and self._pillow.seconds >= self._worth:
            self._tried, self._kernels = True, load_kernels()
        return (self._kernels or self._pillow)(image)


def shape_all(shape: Shape, geometries: Sequence[Geometry], outs: Sequence[NDArray[np.uint8]]) -> list[str]:
    """Write an image's pixels at every geometry; return for each why there are none, or nothing."""
    reasons = []
    for geometry, out in zip(geometries, outs, strict=True):
        try:
            shape(geometry, out)
            reasons.append("")
        except (ValueError, ZeroDivisionError, MemoryError) as error:
            out[...] = 0
            reasons.append(f"cannot be resized: {error}")
    return reasons
