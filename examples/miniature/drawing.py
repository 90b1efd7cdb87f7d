"""A picture as a description (``Scene``) and its rendering: pure functions of the description."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from examples.miniature.shapes import ACCENT, BODY, CLASSES, DARK, FIGURES, LIGHT, LOOKS, NOTHING, SECOND
from examples.miniature.surfaces import DARKENING, MATERIALS, PATTERNS, Field, draw_place

SIDE = 48
"""Height and width of every picture in pixels."""

SUPERSAMPLING = 2

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45), "orange": (240, 140, 40), "yellow": (240, 205, 60), "green": (60, 150, 65),
    "blue": (55, 95, 205), "purple": (130, 65, 165), "pink": (240, 130, 170), "brown": (140, 90, 55),
    "grey": (125, 130, 138), "white": (238, 236, 230),
}  # fmt: skip

STYLES = ("drawing", "cartoon", "mosaic")
"""What a picture can be other than a photo (``sketch``, grey on white, is kept apart)."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object: what it is, how it looks and where it stands."""

    shape: str
    rare: bool = False  # whether it is the rare kind of its class
    x: float = 0.5  # centre and half height in units of the picture's side
    y: float = 0.55
    size: float = 0.36
    angle: float = 0.0  # degrees, clockwise
    mirrored: bool = False
    stretch: float = 0.0  # log of width over height
    shear: float = 0.0
    colour: str = "grey"  # of the body, as the surface and what is printed on it
    material: str = "plain"
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture; the seed decides what the other fields leave open."""

    thing: Thing | None  # what the label names; None for a place or a surface alone
    background: str = "studio"  # a place, or "material:NAME:COLOUR" for a surface that fills the picture
    others: tuple[Thing, ...] = ()  # behind the thing
    blocker: str = ""  # "crate" or "person" in front of it
    style: str = "photo"  # or "sketch", or one of STYLES
    brightness: float = 1.0
    grain: float = 3.0  # standard deviation of the sensor noise in grey levels
    seed: int = 0


def _affine(thing: Thing) -> NDArray[np.float64]:
    angle = np.radians(thing.angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([np.exp(thing.stretch / 2) * (-1 if thing.mirrored else 1), np.exp(-thing.stretch / 2)])
    return np.asarray(turn @ np.array([[1.0, thing.shear], [0.0, 1.0]]) @ stretch * thing.size)


def _vary(rng: np.random.Generator, name: str) -> Field:
    return np.clip(np.array(COLOURS[name]) + rng.normal(0, 10, 3), 8, 250).astype(np.float32)


def _surface(thing: Thing, u: Field, v: Field, rng: np.random.Generator) -> Field:
    first = _vary(rng, thing.colour)
    darker = thing.material in DARKENING or float(first.mean()) > 205
    second = first * np.float32(0.5) if darker else first + (250 - first) * np.float32(0.75)
    colours = first + (second - first) * MATERIALS[thing.material](u, v, rng)[..., None]
    if thing.pattern:
        ink = _vary(rng, ("blue", "yellow", "white", "purple")[int(rng.integers(4))])
        colours += (ink - colours) * PATTERNS[thing.pattern](u, v, rng)[..., None]
    return colours


def _paint(canvas: Field, thing: Thing, rng: np.random.Generator, *, flat: bool) -> NDArray[np.uint8]:
    """Paint a thing over the canvas; returns its map of roles."""
    side, matrix = canvas.shape[0], _affine(thing)
    image = Image.new("L", (side, side), NOTHING)
    draw = ImageDraw.Draw(image)
    figure = f"{thing.shape}-{LOOKS[thing.shape].rare}" if thing.rare else thing.shape
    for role, points in FIGURES[figure]:
        placed = (points @ matrix.T + (thing.x, thing.y)) * side
        draw.polygon([(float(a), float(b)) for a, b in placed], fill=role)
    roles, bounds = np.asarray(image), image.getbbox()
    if bounds is None:
        return roles
    left, top, right, bottom = bounds
    xs = (np.arange(left, right, dtype=np.float32) + 0.5)[None, :] / side - np.float32(thing.x)
    ys = (np.arange(top, bottom, dtype=np.float32) + 0.5)[:, None] / side - np.float32(thing.y)
    inverse = np.linalg.inv(matrix).astype(np.float32)
    u, v = inverse[0, 0] * xs + inverse[0, 1] * ys, inverse[1, 0] * xs + inverse[1, 1] * ys
    window = roles[top:bottom, left:right]
    look = LOOKS.get(thing.shape)
    palette = np.zeros((6, 3), dtype=np.float32)
    palette[SECOND] = _vary(rng, look.second if look else "brown")
    palette[ACCENT] = _vary(rng, look.accent if look else "yellow")
    palette[DARK], palette[LIGHT] = (52, 46, 44), (240, 240, 232)
    colours = palette[window]
    surface = _surface(replace(thing, material="plain") if flat else thing, u, v, rng)
    np.copyto(colours, surface, where=(window == BODY)[..., None])
    if not flat:  # light from the upper left, a soft shadow to the lower right
        colours *= (1.04 - 0.2 * np.clip((xs + ys) / thing.size, -1, 1))[..., None]
        shift = max(1, side // 40)
        under = canvas[top + shift : bottom + shift, left + shift : right + shift]
        under *= np.where(window > 0, np.float32(0.72), np.float32(1))[: under.shape[0], : under.shape[1], None]
    np.copyto(canvas[top:bottom, left:right], colours, where=(window > 0)[..., None])
    return roles


def _blocker(kind: str, rng: np.random.Generator) -> Thing:
    """Return what stands in front of the object: a person in clothes of any colour, or a crate."""
    person = kind == "person"
    return Thing(
        shape=kind,
        x=float(rng.uniform(0.36, 0.64)),
        y=float(rng.uniform(0.5, 0.6) if person else rng.uniform(0.45, 0.7)),
        size=float(0.42 if person else rng.uniform(0.17, 0.21)),
        colour=tuple(COLOURS)[int(rng.integers(len(COLOURS)))] if person else "brown",
    )


def _outline(roles: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Return where neighbouring roles differ, thickened to ``width`` pixels."""
    edge = np.zeros(roles.shape, dtype=bool)
    edge[1:] |= roles[1:] != roles[:-1]
    edge[:, 1:] |= roles[:, 1:] != roles[:, :-1]
    thick = Image.fromarray(edge.view(np.uint8) * 255).filter(ImageFilter.MaxFilter(width | 1))
    return np.asarray(thick) > 0


def _fill(name: str, side: int, rng: np.random.Generator) -> Field:
    if not name.startswith("material:"):
        return draw_place(name, side, rng)
    _, material, colour = name.split(":")
    turn, scale, start = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.3), rng.uniform(-2, 0)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side * np.float32(2.8 * scale) + np.float32(start)
    across, along = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = across * grid[None, :] - along * grid[:, None], along * grid[None, :] + across * grid[:, None]
    return _surface(Thing(shape=CLASSES[0], colour=colour, material=material), u, v, rng)


def _stylise(canvas: Field, roles: NDArray[np.uint8], style: str, rng: np.random.Generator) -> Field:
    side = canvas.shape[0]
    if style == "mosaic":
        tile = side // 16
        tiles = canvas.reshape(side // tile, tile, side // tile, tile, 3).mean(axis=(1, 3))
        tiles += rng.normal(0, 9, (*tiles.shape[:2], 1)).astype(np.float32)
        canvas = np.repeat(np.repeat(tiles, tile, axis=0), tile, axis=1)
        canvas[::tile] *= np.float32(0.7)
        canvas[:, ::tile] *= np.float32(0.7)
        return canvas
    if style == "cartoon":
        flat = np.asarray(np.round(canvas / 85) * 85, dtype=np.float32)
        flat[_outline(roles, side // 32)] = 15
        return flat
    paper: Field = 0.25 * canvas + 0.75 * 246
    if style == "sketch":  # pencil on white: tones of the object, nothing of the place
        tones = np.where(roles > 0, 0.6 * canvas.mean(axis=2) + 95, 246)
        paper = np.repeat(tones[..., None], 3, axis=2)
    paper[_outline(roles, 3)] = 50
    return paper


def _reduce(canvas: Field) -> Field:
    """Average blocks of ``SUPERSAMPLING`` squared pixels."""
    steps = range(SUPERSAMPLING)
    total = sum(canvas[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps)
    return np.asarray(total, dtype=np.float32) / np.float32(SUPERSAMPLING**2)


def render(scene: Scene) -> tuple[NDArray[np.uint8], Field]:
    """Return a scene's pixels, and the share of each that the labelled object covers but for what blocks it.

    Equal scenes give equal pixels: ``(SIDE, SIDE, 3)`` uint8.
    """
    seeds = np.random.SeedSequence(scene.seed).spawn(5)
    rngs = [np.random.default_rng(seed) for seed in seeds]  # one a step: a changed step leaves the others alone
    large, flat = SIDE * SUPERSAMPLING, scene.style == "cartoon"
    canvas: Field = _fill(scene.background, large, rngs[0])
    roles = mask = np.zeros((large, large), dtype=np.uint8)
    for other in scene.others:
        drawn = _paint(canvas, other, rngs[1], flat=flat)
        roles = np.where(drawn > 0, drawn, roles)
    if scene.thing is not None:
        mask = _paint(canvas, scene.thing, rngs[2], flat=flat)
        roles = np.where(mask > 0, mask, roles)
    if scene.blocker:
        _paint(canvas, _blocker(scene.blocker, rngs[3]), rngs[3], flat=flat)
    if scene.style != "photo":
        canvas = _stylise(canvas, roles, scene.style, rngs[4])
    pixels = _reduce(np.clip(canvas, 0, 255)) * np.float32(scene.brightness)
    pixels += rngs[4].standard_normal((SIDE, SIDE, 1), dtype=np.float32) * np.float32(scene.grain)
    coverage = _reduce((mask > 0).astype(np.float32))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), coverage
