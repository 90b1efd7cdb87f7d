"""The eight places a picture can be taken in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]


def _vary(rng: np.random.Generator, colour: Colour, by: float = 14.0) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(c + rng.normal(0, by * 0.5), 0, 255)) for c in colour)
    return red, green, blue


def _gradient(side: int, top: Colour, bottom: Colour) -> Image.Image:
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[:, None, None]
    pixels = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    return Image.fromarray(pixels.round().astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)


def _hills(
    draw: ImageDraw.ImageDraw,
    side: int,
    level: float,
    height: float,
    colour: Colour,
    rng: np.random.Generator,
) -> None:
    x = np.linspace(0, side, 13)
    phase, waves = rng.uniform(0, 6.3), rng.uniform(1.0, 2.5)
    y = side * (level - height * np.sin(phase + waves * np.pi * x / side))
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    draw.polygon([(0, side), *points, (side, side)], fill=_vary(rng, colour))


def _meadow(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (140, 195, 240)), _vary(rng, (215, 235, 250)))
    draw = ImageDraw.Draw(image)
    _hills(draw, side, rng.uniform(0.5, 0.6), 0.05, (120, 175, 95), rng)
    _hills(draw, side, rng.uniform(0.65, 0.75), 0.04, (150, 195, 100), rng)
    return image


def _sea(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (190, 220, 240)), _vary(rng, (225, 238, 245)))
    draw = ImageDraw.Draw(image)
    horizon = int(side * rng.uniform(0.3, 0.5))
    draw.rectangle((0, horizon, side, side), fill=_vary(rng, (55, 125, 180)))
    for _ in range(14):
        x, y = rng.uniform(-0.1, 1) * side, rng.uniform(horizon / side + 0.04, 1) * side
        draw.line((x, y, x + side * rng.uniform(0.08, 0.25), y), fill=(110, 170, 215), width=max(1, side // 64))
    return image


def _street(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (185, 200, 215)), _vary(rng, (215, 215, 215)))
    draw = ImageDraw.Draw(image)
    x = -rng.uniform(0, 0.1)
    while x < 1:
        width, top = rng.uniform(0.14, 0.26), rng.uniform(0.05, 0.35)
        grey = rng.uniform(120, 180)
        draw.rectangle((x * side, top * side, (x + width) * side, 0.65 * side), fill=_vary(rng, (grey, grey, grey + 8)))
        for row in np.arange(top + 0.05, 0.6, 0.1):
            draw.rectangle(
                ((x + width * 0.25) * side, row * side, (x + width * 0.75) * side, (row + 0.035) * side),
                fill=(205, 210, 200),
            )
        x += width
    draw.rectangle((0, 0.63 * side, side, side), fill=_vary(rng, (105, 105, 110)))
    for k in range(4):
        left = (k / 4 + 0.05) * side
        draw.rectangle((left, 0.87 * side, left + 0.13 * side, 0.9 * side), fill=(225, 225, 210))
    return image


def _kitchen(side: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (side, side), _vary(rng, (238, 225, 200), 20))
    draw = ImageDraw.Draw(image)
    step = side / rng.integers(4, 7)
    line = _vary(rng, (220, 203, 175))
    for k in range(8):
        draw.line((k * step, 0, k * step, side), fill=line, width=max(1, side // 80))
        draw.line((0, k * step, side, k * step), fill=line, width=max(1, side // 80))
    top = side * rng.uniform(0.6, 0.72)
    draw.rectangle((0, top, side, side), fill=_vary(rng, (170, 120, 80)))
    draw.rectangle((0, top, side, top + side * 0.03), fill=_vary(rng, (195, 145, 100)))
    return image


def _forest(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (60, 95, 65)), _vary(rng, (95, 125, 80)))
    draw = ImageDraw.Draw(image)
    for x in np.sort(rng.uniform(0, 1, 7)):
        width = rng.uniform(0.03, 0.07)
        draw.rectangle((x * side, 0, (x + width) * side, 0.8 * side), fill=_vary(rng, (72, 58, 45), 24))
    _hills(draw, side, rng.uniform(0.72, 0.8), 0.03, (88, 80, 50), rng)
    return image


def _snow(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (165, 185, 215)), _vary(rng, (215, 225, 240)))
    draw = ImageDraw.Draw(image)
    _hills(draw, side, rng.uniform(0.45, 0.55), 0.1, (205, 215, 232), rng)
    _hills(draw, side, rng.uniform(0.65, 0.75), 0.04, (240, 244, 250), rng)
    for _ in range(16):
        x, y, r = rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.006, 0.014)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    return image


def _desert(side: int, rng: np.random.Generator) -> Image.Image:
    image = _gradient(side, _vary(rng, (250, 205, 150)), _vary(rng, (255, 232, 190)))
    draw = ImageDraw.Draw(image)
    x, y, r = side * rng.uniform(0.15, 0.85), side * rng.uniform(0.1, 0.25), side * 0.08
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 245, 210))
    _hills(draw, side, rng.uniform(0.5, 0.6), 0.06, (225, 175, 110), rng)
    _hills(draw, side, rng.uniform(0.68, 0.76), 0.05, (210, 155, 90), rng)
    return image


def _studio(side: int, rng: np.random.Generator) -> Image.Image:
    grey = rng.uniform(170, 235)
    return _gradient(side, _vary(rng, (grey, grey, grey), 8), _vary(rng, (grey - 35, grey - 35, grey - 32), 8))


BACKGROUNDS: dict[str, Callable[[int, np.random.Generator], Image.Image]] = {
    "meadow": _meadow,
    "sea": _sea,
    "street": _street,
    "kitchen": _kitchen,
    "forest": _forest,
    "snow": _snow,
    "desert": _desert,
    "studio": _studio,
}
"""Place -> function of side (pixels) and generator."""

USUAL_BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "apple": ("kitchen", "meadow"),
    "boat": ("sea",),
    "bottle": ("kitchen",),
    "car": ("street", "desert"),
    "cup": ("kitchen", "studio"),
    "fish": ("sea",),
    "house": ("meadow", "snow"),
    "mushroom": ("forest",),
    "tree": ("meadow", "snow"),
    "umbrella": ("street", "desert"),
}
"""Class -> where it is usually seen."""

PLACE_PHRASES: dict[str, str] = {
    "meadow": "in a meadow",
    "sea": "by the sea",
    "street": "on a street",
    "kitchen": "on a kitchen table",
    "forest": "in the forest",
    "snow": "in the snow",
    "desert": "in the desert",
    "studio": "on a grey background",
}


def background(name: str, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a picture of a place.

    Parameters
    ----------
    name
        One of ``BACKGROUNDS``.
    side
        Height and width in pixels.
    rng
        Where the details come from.

    Returns
    -------
    ndarray
        ``(side, side, 3)`` float32, 0 to 255.
    """
    return np.asarray(BACKGROUNDS[name](side, rng), dtype=np.float32)
