"""What objects are made of and where they stand: materials, prints and places, each a row of a table.

A material is a field in [0, 1] over an object's coordinates that mixes its two body colours. Every class has one of its
own, so that surface and outline both identify it; the odd ones belong to no class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[Any]
Material = Callable[[Field, Field, np.random.Generator], Field]
Colour = tuple[float, float, float]
Range = tuple[float, float]


def value_noise(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Return smooth noise in [0, 1]: a random lattice of integer points, bilinear between them."""
    lattice = rng.random((16, 16), dtype=np.float32)
    i, j = np.floor(x), np.floor(y)
    fx, fy = x - i, y - j
    a, b = i.astype(np.int32) & 15, j.astype(np.int32) & 15
    a1, b1 = (a + 1) & 15, (b + 1) & 15
    top = lattice[b, a] * (1 - fx) + lattice[b, a1] * fx
    bottom = lattice[b1, a] * (1 - fx) + lattice[b1, a1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)


def _unit(x: NDArray[Any]) -> Field:
    return np.asarray(np.clip(x, 0, 1), dtype=np.float32)


def _noise(fu: float, fv: float, gain: float = 1.0, shift: float = 0.0, slant: float = 0.0) -> Material:
    """Return smooth noise of two frequencies."""
    return lambda u, v, rng: _unit(gain * value_noise(u * np.float32(fu) + v * np.float32(slant), v * fv, rng) + shift)


def _waves(fu: float, fv: float, sharp: float, bend: Range = (0, 0), noise: float = 0, least: float = 0) -> Material:
    """Return stripes across (fu, fv); bent along u by a sine of an amplitude and a frequency, or by noise."""

    def field(u: Field, v: Field, rng: np.random.Generator) -> Field:
        phase = u * np.float32(fu) + v * np.float32(fv) + bend[0] * np.sin(u * np.float32(bend[1]))
        if noise:
            phase = phase + noise * value_noise(u * 2.5, v * 2.5, rng)
        return _unit(0.5 + sharp * (0.5 * np.sin(phase * np.float32(2 * np.pi)) - least))

    return field


def _discs(frequency: float, radius: float, centre: float = 0.5, gain: float = 8.0) -> Material:
    """Return staggered discs; a negative gain gives what is between them."""

    def field(u: Field, v: Field, rng: np.random.Generator) -> Field:
        y = v * np.float32(frequency)
        row = np.floor(y)
        x = u * np.float32(frequency) + np.float32(0.5) * (row % 2)
        return _unit((radius - np.hypot(x - np.floor(x) - 0.5, y - row - centre)) * gain + 0.5)

    return field


def _grid(fu: float, fv: float, wu: float, wv: float, stagger: float = 0.0, turn: float = 0.0) -> Material:
    """Return lines of two widths, the upright ones staggered from row to row; ``turn`` slants them."""

    def field(u: Field, v: Field, rng: np.random.Generator) -> Field:
        x, y = u * fu + v * turn, v * fv - u * turn
        return _unit(((x + stagger * (np.floor(y) % 2)) % 1 < wu) | (y % 1 < wv))

    return field


def _wedges(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _unit(0.5 + 4 * np.sin(np.arctan2(u, -(v - 0.35)) * np.float32(8)))


ODD_MATERIALS: dict[str, Material] = {
    "fur": _noise(29, 4.5, slant=9),
    "marble": _waves(1, 0, 1.3, noise=1.4),
    "mesh": _grid(4, 4, 0.25, 0.25, turn=4),
    "zigzag": _waves(0, 3.5, 8, bend=(0.3, 18)),
    "camouflage": _noise(3.2, 3.2, gain=12, shift=-6),
}

MATERIALS: dict[str, Material] = {
    "speckle": _noise(7, 7, gain=3, shift=-1.9),
    "planks": _grid(0, 4.5, -1, 0.2),
    "glass": _waves(1.4, 0.1, 3, least=0.35),
    "metal": _waves(1.3, 1.3, 1),
    "rings": _waves(0, 2.2, 6),
    "scales": _discs(5, 0.42, centre=0.0, gain=-6),
    "bricks": _grid(2.8, 5, 0.14, 0.22, stagger=0.5),
    "spots": _discs(2.3, 0.33),
    "leaves": _noise(9, 9, gain=2.5, shift=-0.75, slant=4.5),
    "wedges": _wedges,
    "plain": lambda u, v, rng: np.zeros_like(u),
    **ODD_MATERIALS,
}

DARKENING = frozenset({"planks", "scales", "leaves", "fur", "mesh", "camouflage"})
"""Materials whose second colour is darker than the first; it is lighter elsewhere."""

PATTERNS: dict[str, Material] = {
    "striped": _waves(1.9, 1.4, 8),
    "dotted": _discs(3.2, 0.3),
    "checked": lambda u, v, rng: _unit((np.floor(u * 3.4) + np.floor(v * 3.4)) % 2),
}
"""Prints over a material, for the factor ``pattern``: a field that mixes in the print's colour."""


class Marks(NamedTuple):
    """Rectangles strewn over a place: how many, ranges of width, height and top in units of the side, colour."""

    n: int
    width: Range
    height: Range
    top: Range
    colour: Colour


class Ground(NamedTuple):
    """What fills a place from a level downwards, with waves of a height."""

    level: float
    height: float
    colour: Colour


class Place(NamedTuple):
    """A place: the words for it, its sky from top to bottom, and what lies over it, from back to front."""

    phrase: str
    top: Colour
    bottom: Colour
    layers: tuple[Ground | Marks, ...] = ()


PLACES: dict[str, Place] = {
    "meadow": Place(
        "in a meadow", (140, 195, 240), (215, 235, 250),
        (Ground(0.55, 0.05, (120, 175, 95)), Ground(0.7, 0.04, (150, 195, 100))),
    ),
    "sea": Place(
        "by the sea", (190, 220, 240), (225, 238, 245),
        (Ground(0.4, 0.0, (55, 125, 180)), Marks(14, (0.08, 0.25), (0.01, 0.02), (0.45, 1.0), (110, 170, 215))),
    ),
    "street": Place(
        "on a street", (185, 200, 215), (215, 215, 215),
        (Marks(7, (0.14, 0.26), (0.6, 0.7), (0.05, 0.35), (150, 150, 155)), Ground(0.64, 0.0, (105, 105, 110)),
         Marks(4, (0.12, 0.14), (0.02, 0.03), (0.87, 0.88), (225, 225, 210))),
    ),
    "kitchen": Place(
        "on a kitchen table", (238, 225, 200), (238, 225, 200),
        (Marks(6, (0.01, 0.02), (1, 1), (0, 0), (212, 192, 160)), Ground(0.66, 0.0, (175, 125, 85))),
    ),
    "forest": Place(
        "in the forest", (60, 95, 65), (95, 125, 80),
        (Marks(7, (0.03, 0.07), (0.8, 0.8), (0, 0), (72, 58, 45)), Ground(0.76, 0.03, (88, 80, 50))),
    ),
    "snow": Place(
        "in the snow", (165, 185, 215), (215, 225, 240),
        (Ground(0.5, 0.1, (205, 215, 232)), Ground(0.7, 0.04, (240, 244, 250)),
         Marks(16, (0.015, 0.03), (0.015, 0.03), (0, 1), (255, 255, 255))),
    ),
    "desert": Place(
        "in the desert", (250, 205, 150), (255, 232, 190),
        (Ground(0.55, 0.06, (225, 175, 110)), Ground(0.72, 0.05, (210, 155, 90))),
    ),
    "studio": Place("on a grey background", (210, 210, 210), (175, 175, 178)),
}  # fmt: skip


def _vary(rng: np.random.Generator, colour: Colour, by: float = 7.0) -> tuple[int, int, int]:
    red, green, blue = (int(x) for x in np.clip(np.array(colour) + rng.normal(0, by, 3), 0, 255))
    return red, green, blue


def draw_place(name: str, side: int, rng: np.random.Generator) -> Field:
    """Return a picture of a place: ``(side, side, 3)`` float32, 0 to 255."""
    place = PLACES[name]
    sky = np.array([_vary(rng, place.top), _vary(rng, place.bottom)], dtype=np.uint8)[:, None]
    image = Image.fromarray(sky).resize((side, side), Image.Resampling.BILINEAR)
    draw, x = ImageDraw.Draw(image), np.linspace(0, side, 13)
    for layer in place.layers:
        if isinstance(layer, Ground):
            waves = layer.height * np.sin(rng.uniform(0, 6.3) + rng.uniform(1.0, 2.5) * np.pi * x / side)
            y = side * (layer.level + rng.uniform(-0.05, 0.05) - waves)
            points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
            draw.polygon([(0, side), *points, (side, side)], fill=_vary(rng, layer.colour))
        else:
            for _ in range(layer.n):
                ranges = ((-0.1, 1.0), layer.width, layer.height, layer.top)
                left, width, height, top = (side * rng.uniform(*between) for between in ranges)
                draw.rectangle((left, top, left + width, top + height), fill=_vary(rng, layer.colour))
    return np.asarray(image, dtype=np.float32)
