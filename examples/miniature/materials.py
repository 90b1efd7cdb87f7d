"""Surfaces: a field in [0, 1] over object coordinates that mixes an object's two body colours.

Every class has a material of its own, so that surface and outline both identify the class. Further materials,
which belong to no class, are for the factor ``texture`` and for the out-of-distribution set of textures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Material = Callable[[Field, Field, np.random.Generator], Field]


def value_noise(u: Field, v: Field, rng: np.random.Generator, frequency: float) -> Field:
    """Return smooth noise in [0, 1]: a random lattice, bilinear between its points."""
    lattice = rng.random((16, 16), dtype=np.float32)
    x, y = u * np.float32(frequency), v * np.float32(frequency)
    i, j = np.floor(x), np.floor(y)
    fx, fy = x - i, y - j
    a, b = i.astype(np.int32) & 15, j.astype(np.int32) & 15
    a1, b1 = (a + 1) & 15, (b + 1) & 15
    top = lattice[b, a] * (1 - fx) + lattice[b, a1] * fx
    bottom = lattice[b1, a] * (1 - fx) + lattice[b1, a1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)


def _unit(x: NDArray[Any]) -> Field:
    """Clip to [0, 1]."""
    return np.asarray(np.clip(x, 0, 1), dtype=np.float32)


def _wave(x: Field, sharpness: float = 3.0) -> Field:
    """Return stripes of period 1 with soft edges."""
    return _unit(0.5 + sharpness * 0.5 * np.sin(x * np.float32(2 * np.pi)))


def _discs(u: Field, v: Field, frequency: float, radius: float, shift: float = 0.5) -> Field:
    """Return staggered discs."""
    y = v * np.float32(frequency)
    row = np.floor(y)
    x = u * np.float32(frequency) + np.float32(shift) * (row % 2)
    distance = np.hypot(x - np.floor(x) - 0.5, y - row - 0.5)
    return _unit((radius - distance) * 8 + 0.5)


def _speckle(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _unit(3.0 * value_noise(u, v, rng, 7.0) - 1.9)


def _planks(u: Field, v: Field, rng: np.random.Generator) -> Field:
    grain = 0.4 * value_noise(u * 0.3, v, rng, 11.0)
    return _unit(np.where((v * 4.5) % 1 < 0.2, 1.0, grain))


def _glass(u: Field, v: Field, rng: np.random.Generator) -> Field:
    bend = u + 0.08 * np.sin(v * 3)
    highlight = np.exp(-(((bend % 0.7) - 0.2) ** 2) / 0.008)
    return np.asarray(highlight, dtype=np.float32)


def _metal(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _wave((u + v) * np.float32(1.3) + np.float32(rng.random()), 1.0)


def _rings(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _wave(v * np.float32(2.2) + 0.12 * np.sin(u * np.float32(14)), 6.0)


def _scales(u: Field, v: Field, rng: np.random.Generator) -> Field:
    y = v * np.float32(5.0)
    row = np.floor(y)
    x = u * np.float32(5.0) + 0.5 * (row % 2)
    distance = np.hypot(x - np.floor(x) - 0.5, y - row)
    return _unit((distance - 0.42) * 6)


def _bricks(u: Field, v: Field, rng: np.random.Generator) -> Field:
    y = v * np.float32(5.0)
    row = np.floor(y)
    x = u * np.float32(2.8) + 0.5 * (row % 2)
    return _unit((x % 1 < 0.14) | (y - row < 0.22))


def _spots(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _discs(u, v, 2.3, 0.33)


def _leaves(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _unit(2.5 * value_noise(u + v * 0.5, v, rng, 9.0) - 0.75)


def _wedges(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _wave(np.arctan2(u, -(v - 0.35)) * np.float32(8 / (2 * np.pi)), 8.0)


CLASS_MATERIALS: dict[str, Material] = {
    "apple": _speckle,
    "boat": _planks,
    "bottle": _glass,
    "car": _metal,
    "cup": _rings,
    "fish": _scales,
    "house": _bricks,
    "mushroom": _spots,
    "tree": _leaves,
    "umbrella": _wedges,
}
"""Class name -> its material."""


def _fur(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return value_noise(u * 3.2 + v, v * 0.5, rng, 9.0)


def _marble(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _wave(u + np.float32(1.4) * value_noise(u, v, rng, 2.5), 1.3)


def _mesh(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _unit(((u + v) * 4 % 1 < 0.25) | ((u - v) * 4 % 1 < 0.25))


def _zigzag(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _wave(v * np.float32(3.5) + np.abs((u * 3) % 1 - 0.5), 8.0)


def _camouflage(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _unit(np.round(value_noise(u, v, rng, 3.2) * 1.6))


ODD_MATERIALS: dict[str, Material] = {
    "fur": _fur,
    "marble": _marble,
    "mesh": _mesh,
    "zigzag": _zigzag,
    "camouflage": _camouflage,
}
"""Materials of no class."""


def _plain(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return np.zeros_like(u)


MATERIALS: dict[str, Material] = {**CLASS_MATERIALS, **ODD_MATERIALS, "plain": _plain}

PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "stripes": lambda u, v: _wave((u * 0.8 + v * 0.6) * np.float32(2.4), 8.0),
    "dots": lambda u, v: _discs(u, v, 3.2, 0.3),
    "checks": lambda u, v: _unit((np.floor(u * 3.4) + np.floor(v * 3.4)) % 2),
}
"""Prints over a material, for the factor ``pattern``: a field that mixes in the print's colour."""
