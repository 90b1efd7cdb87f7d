"""A picture as a description (``Scene``) and its rendering: pure functions of the description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from examples.miniature.backgrounds import background
from examples.miniature.materials import MATERIALS, PATTERNS, value_noise
from examples.miniature.other_shapes import ALL_SHAPES
from examples.miniature.outlines import ACCENT, BODY, DARK, LIGHT, NOTHING, SECOND, Part, box, ellipse, stroke

SIDE = 64
"""Height and width of every picture in pixels."""

SUPERSAMPLING = 2

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "orange": (240, 140, 40),
    "yellow": (240, 205, 60),
    "green": (60, 150, 65),
    "blue": (55, 95, 205),
    "purple": (130, 65, 165),
    "pink": (240, 130, 170),
    "brown": (140, 90, 55),
    "grey": (125, 130, 138),
    "white": (238, 236, 230),
}

USUAL_COLOURS: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green"),
    "boat": ("white", "brown"),
    "bottle": ("green", "brown"),
    "car": ("blue", "red"),
    "cup": ("white", "blue"),
    "fish": ("orange", "grey"),
    "house": ("yellow", "orange"),
    "mushroom": ("red", "brown"),
    "tree": ("green", "green"),
    "umbrella": ("purple", "pink"),
}
"""Class -> the body colours it usually has."""

_ACCENTS: dict[str, tuple[str, str]] = {
    "apple": ("green", "white"),
    "boat": ("red", "brown"),
    "bottle": ("brown", "white"),
    "car": ("yellow", "grey"),
    "cup": ("orange", "white"),
    "fish": ("yellow", "white"),
    "house": ("brown", "grey"),
    "mushroom": ("orange", "white"),
    "tree": ("orange", "brown"),
    "umbrella": ("yellow", "brown"),
}
_DARK_MATERIALS = frozenset({"boat", "fish", "tree", "fur", "mesh", "camouflage"})
_PERSON = (SECOND, ACCENT, DARK)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object: what it is, how it looks and where it stands.

    Attributes
    ----------
    shape, kind
        Name in ``ALL_SHAPES`` and which of its kinds.
    x, y, size
        Centre and half height in units of the picture's side.
    angle
        Rotation in degrees, clockwise.
    mirrored
        Whether left and right are swapped.
    stretch, shear
        Log of width over height; slant.
    colour, material, pattern
        Body colour, surface, print (empty: none).
    """

    shape: str
    kind: int = 0
    x: float = 0.5
    y: float = 0.55
    size: float = 0.36
    angle: float = 0.0
    mirrored: bool = False
    stretch: float = 0.0
    shear: float = 0.0
    colour: str = "grey"
    material: str = "plain"
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture.

    Attributes
    ----------
    thing
        The object that the label names; None for a picture of a place or a surface alone.
    others
        Further objects, drawn before (behind) it.
    background
        Name of a place, or ``material:NAME:COLOUR`` for a surface that fills the picture.
    blocker
        ``object``, ``person`` or empty: what stands in front.
    style
        ``photo``, ``drawing``, ``cartoon``, ``painting``, ``mosaic`` or ``sketch``.
    brightness
        Factor on all values.
    grain
        Standard deviation of the sensor noise, in grey levels.
    seed
        Seed of everything that the fields leave open.
    """

    thing: Thing | None
    background: str = "studio"
    others: tuple[Thing, ...] = field(default=())
    blocker: str = ""
    style: str = "photo"
    brightness: float = 1.0
    grain: float = 3.0
    seed: int = 0


def _affine(thing: Thing) -> NDArray[np.float64]:
    angle = np.radians(thing.angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([np.exp(thing.stretch / 2) * (-1 if thing.mirrored else 1), np.exp(-thing.stretch / 2)])
    slant = np.array([[1.0, thing.shear], [0.0, 1.0]])
    return np.asarray(turn @ slant @ stretch * thing.size)


def _draw_parts(parts: Sequence[Part], matrix: NDArray[np.float64], x: float, y: float, side: int) -> Image.Image:
    roles = Image.new("L", (side, side), NOTHING)
    draw = ImageDraw.Draw(roles)
    for role, points in parts:
        placed = (points @ matrix.T + (x, y)) * side
        draw.polygon([(float(a), float(b)) for a, b in placed], fill=role)
    return roles


def _colour(rng: np.random.Generator, name: str, spread: float = 10.0) -> NDArray[np.float32]:
    base = np.asarray(COLOURS[name], dtype=np.float32)
    return np.clip(base + rng.normal(0, spread, 3).astype(np.float32), 8, 250).astype(np.float32)


def _second_colour(material: str, first: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colour that a material mixes in: lighter, or darker where light would vanish."""
    if material in _DARK_MATERIALS or float(first.mean()) > 205:
        return first * np.float32(0.5)
    return first + (250 - first) * np.float32(0.75)


def _surface(
    thing: Thing, u: NDArray[np.float32], v: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    first = _colour(rng, thing.colour)
    mix = MATERIALS[thing.material](u, v, rng)[..., None]
    colours = first * (1 - mix) + _second_colour(thing.material, first) * mix
    if thing.pattern:
        ink = _colour(rng, ("blue", "yellow", "white", "purple")[int(rng.integers(4))])
        mix = PATTERNS[thing.pattern](u, v)[..., None]
        colours = colours * (1 - mix) + ink * mix
    return colours


def _paint(canvas: NDArray[np.float32], thing: Thing, rng: np.random.Generator, *, flat: bool) -> NDArray[np.uint8]:
    """Paint a thing over the canvas; returns its map of roles."""
    side = canvas.shape[0]
    matrix = _affine(thing)
    image = _draw_parts(ALL_SHAPES[thing.shape](thing.kind), matrix, thing.x, thing.y, side)
    roles = np.asarray(image)
    bounds = image.getbbox()
    if bounds is None:
        return roles
    left, top, right, bottom = bounds
    xs = (np.arange(left, right, dtype=np.float32) + 0.5) / side - np.float32(thing.x)
    ys = (np.arange(top, bottom, dtype=np.float32) + 0.5) / side - np.float32(thing.y)
    inverse = np.linalg.inv(matrix).astype(np.float32)
    u = inverse[0, 0] * xs[None, :] + inverse[0, 1] * ys[:, None]
    v = inverse[1, 0] * xs[None, :] + inverse[1, 1] * ys[:, None]
    window = roles[top:bottom, left:right]
    accent, second = _ACCENTS.get(thing.shape, ("yellow", "brown"))
    palette = np.zeros((6, 3), dtype=np.float32)
    palette[SECOND], palette[ACCENT] = _colour(rng, second), _colour(rng, accent)
    palette[DARK], palette[LIGHT] = (52, 46, 44), (240, 240, 232)
    colours = palette[window]
    plain = Thing(shape=thing.shape, colour=thing.colour, pattern=thing.pattern) if flat else thing
    np.copyto(colours, _surface(plain, u, v, rng), where=(window == BODY)[..., None])
    if not flat:  # light from the upper left, a soft shadow to the lower right
        colours *= (1.04 - 0.2 * np.clip((xs[None, :] + ys[:, None]) / thing.size, -1, 1))[..., None]
        shift = max(1, side // 40)
        under = canvas[top + shift : bottom + shift, left + shift : right + shift]
        under *= np.where(window > 0, np.float32(0.72), np.float32(1))[: under.shape[0], : under.shape[1], None]
    np.copyto(canvas[top:bottom, left:right], colours, where=(window > 0)[..., None])
    return roles


def _outline(roles: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Return where neighbouring roles differ, thickened to ``width`` pixels."""
    edge = np.zeros(roles.shape, dtype=bool)
    edge[1:] |= roles[1:] != roles[:-1]
    edge[:, 1:] |= roles[:, 1:] != roles[:, :-1]
    thick = Image.fromarray(edge.view(np.uint8) * 255).filter(ImageFilter.MaxFilter(width | 1))
    return np.asarray(thick) > 0


def _block(canvas: NDArray[np.float32], kind: str, rng: np.random.Generator) -> None:
    side = canvas.shape[0]
    x, y = rng.uniform(0.36, 0.64), rng.uniform(0.5, 0.6)
    if kind == "person":
        parts = [
            *stroke(DARK, 0.2, -0.12, 0.35, -0.15, 1.0),
            *stroke(DARK, 0.2, 0.12, 0.35, 0.15, 1.0),
            box(ACCENT, -0.28, -0.45, 0.28, 0.4),
            *stroke(ACCENT, 0.16, -0.25, -0.35, -0.45, 0.25),
            *stroke(ACCENT, 0.16, 0.25, -0.35, 0.45, 0.25),
            ellipse(SECOND, 0, -0.72, 0.24, 0.26),
        ]
        matrix = np.eye(2) * 0.42
    else:
        parts = [box(ACCENT, -1, -1, 1, 1), box(DARK, -1, -0.12, 1, 0.12), box(DARK, -0.12, -1, 0.12, 1)]
        matrix = np.eye(2) * rng.uniform(0.17, 0.21)
        y = rng.uniform(0.45, 0.7)
    roles = np.asarray(_draw_parts(parts, matrix, x, y, side))
    clothes = tuple(COLOURS)[int(rng.integers(len(COLOURS)))]
    tones = ((222, 180, 150), COLOURS[clothes] if kind == "person" else (196, 154, 100), (92, 70, 60))
    for role, tone in zip(_PERSON, tones, strict=True):
        canvas[roles == role] = tone


def _fill(name: str, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if not name.startswith("material:"):
        return background(name, side, rng)
    _, material, colour = name.split(":")
    turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.3)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side * np.float32(2.8 * scale) + np.float32(rng.uniform(-2, 0))
    u = np.cos(turn) * grid[None, :] - np.sin(turn) * grid[:, None]
    v = np.sin(turn) * grid[None, :] + np.cos(turn) * grid[:, None]
    thing = Thing(shape="apple", colour=colour, material=material)
    return _surface(thing, u.astype(np.float32), v.astype(np.float32), rng)


def _stylise(
    canvas: NDArray[np.float32], roles: NDArray[np.uint8], style: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    side = canvas.shape[0]
    if style == "mosaic":
        tile = side // 16
        tiles = canvas.reshape(side // tile, tile, side // tile, tile, 3).mean(axis=(1, 3))
        tiles += rng.normal(0, 9, (*tiles.shape[:2], 1)).astype(np.float32)
        canvas = np.repeat(np.repeat(tiles, tile, axis=0), tile, axis=1)
        canvas[::tile] *= np.float32(0.7)
        canvas[:, ::tile] *= np.float32(0.7)
        return canvas
    if style == "painting":
        grid = np.arange(side, dtype=np.float32) / side
        u, v = np.meshgrid(grid, grid)
        strokes = value_noise(u + 2 * v, v - u, rng, 14.0) - 0.5
        return np.asarray(np.round(canvas / 64) * 64 + strokes[..., None] * 60, dtype=np.float32)
    if style == "cartoon":
        flat = np.asarray(np.round(canvas / 85) * 85, dtype=np.float32)
        flat[_outline(roles, side // 32)] = 15
        return flat
    ink = _outline(roles, max(3, side // 64))
    if style == "sketch":  # pencil on white: tones of the object, nothing of the place
        tones = np.where(roles > 0, 0.6 * canvas.mean(axis=2) + 95, 246)
        paper = np.repeat(tones[..., None], 3, axis=2).astype(np.float32)
    else:
        paper = 0.25 * canvas + np.float32(0.75 * 246)
    paper[ink] = 50
    return paper


def _reduce(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average blocks of ``SUPERSAMPLING`` squared pixels."""
    steps = range(SUPERSAMPLING)
    total = sum(canvas[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps)
    return np.asarray(total, dtype=np.float32) / np.float32(SUPERSAMPLING**2)


STYLES = ("drawing", "cartoon", "painting", "mosaic")
"""What a picture can be other than a photo (``sketch``, grey on white, is kept apart)."""


def render(scene: Scene, *, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render a scene.

    Parameters
    ----------
    scene
        What to draw. Equal scenes give equal pixels.
    side
        Height and width in pixels.

    Returns
    -------
    pixels
        ``(side, side, 3)`` uint8.
    coverage
        ``(side, side)`` float32, 0 to 1: how much of a pixel the labelled object covers before anything
        stands in front of it.
    """
    seeds = np.random.SeedSequence(scene.seed).spawn(5)
    rngs = [np.random.default_rng(seed) for seed in seeds]  # one a step: a changed step leaves the others alone
    large = side * SUPERSAMPLING
    canvas = _fill(scene.background, large, rngs[0])
    flat = scene.style == "cartoon"
    roles = np.zeros((large, large), dtype=np.uint8)
    for other in scene.others:
        drawn = _paint(canvas, other, rngs[1], flat=flat)
        roles = np.where(drawn > 0, drawn, roles)
    mask = np.zeros_like(roles)
    if scene.thing is not None:
        mask = _paint(canvas, scene.thing, rngs[2], flat=flat)
        roles = np.where(mask > 0, mask, roles)
    if scene.blocker:
        _block(canvas, scene.blocker, rngs[3])
    if scene.style != "photo":
        canvas = _stylise(canvas, roles, scene.style, rngs[4])
    pixels = _reduce(np.clip(canvas, 0, 255)) * np.float32(scene.brightness)
    pixels += rngs[4].standard_normal((side, side, 1), dtype=np.float32) * np.float32(scene.grain)
    coverage = _reduce((mask > 0).astype(np.float32))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), coverage
