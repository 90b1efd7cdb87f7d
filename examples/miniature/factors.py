"""The sixteen visual factors of ImageNet-X as changes of a scene.

A *typical* scene shows a class in its usual colour, material, kind and place, upright, of middling size: a prototype.
A factor changes just what it names. Every test picture that is not a prototype has one *top* factor, applied strongly,
and may have further ones, applied weakly; all of them count in the multi-factor annotation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from examples.miniature.drawing import COLOURS, STYLES, Scene, Thing
from examples.miniature.shapes import LARGER_CLASSES, LOOKS
from examples.miniature.surfaces import MATERIALS, ODD_MATERIALS, PATTERNS, PLACES

T = TypeVar("T")

CLASS_MATERIALS = tuple(name for name in MATERIALS if name not in ODD_MATERIALS)
"""Those of the ten classes, and ``plain``."""

_WEIGHTS: dict[str, float] = {
    "pose": 0.16, "background": 0.15, "pattern": 0.11, "color": 0.11, "smaller": 0.08, "shape": 0.065,
    "partial_view": 0.065, "subcategory": 0.065, "texture": 0.055, "larger": 0.055, "darker": 0.015,
    "object_blocking": 0.015, "person_blocking": 0.015, "style": 0.015, "brighter": 0.015, "multiple_objects": 0.015,
}  # fmt: skip
"""Factor -> how often it is the top one, in ImageNet-X's order and spelling."""

FACTORS = tuple(_WEIGHTS)
STUDY_FACTORS = FACTORS[:10]
"""The ten factors of the study."""

_EXCLUSIVE = (
    {"smaller", "larger"},
    {"smaller", "partial_view"},
    {"darker", "brighter"},
    {"object_blocking", "person_blocking"},
    {"pattern", "texture"},
    {"style", "texture"},  # a cartoon has no surfaces
)
PROTOTYPE_SHARE = 0.2

LEAST_SIZE = 0.1
"""Share of the picture below which nothing is made smaller: a usual thing never gets there, only one shrunk again."""


def pick(rng: np.random.Generator, choices: Iterable[T], but: Iterable[T] = ()) -> T:
    """Return one of the choices that is not among ``but``."""
    excluded = tuple(but)
    left = [choice for choice in choices if choice not in excluded]
    return left[int(rng.integers(len(left)))]


def typical_thing(name: str, rng: np.random.Generator) -> Thing:
    """Return an object as it usually looks; what is not a class has no usual colour and surface: it gets any."""
    look = LOOKS.get(name)
    return Thing(
        shape=name,
        x=float(rng.uniform(0.45, 0.55)),
        y=float(rng.uniform(0.52, 0.6)),
        size=float(rng.uniform(0.34, 0.41)),
        angle=float(rng.normal(0, 5)),
        mirrored=bool(rng.integers(2)),
        stretch=float(rng.normal(0, 0.06)),
        colour=pick(rng, look.colours if look else COLOURS),
        material=look.material if look else pick(rng, CLASS_MATERIALS),
    )


def typical_scene(name: str, rng: np.random.Generator) -> Scene:
    """Return a prototype: no factor active."""
    look = LOOKS.get(name)
    return Scene(
        thing=typical_thing(name, rng),
        background=pick(rng, look.places if look else PLACES),
        brightness=float(rng.uniform(0.94, 1.06)),
        seed=int(rng.integers(2**31)),
    )


def _others(thing: Thing, rng: np.random.Generator, n: int) -> tuple[Thing, ...]:
    """Return small objects of other classes in n corners."""
    others = []
    for corner in rng.permutation(4)[:n]:
        x = float(rng.uniform(0.12, 0.2)) if corner % 2 else float(rng.uniform(0.8, 0.88))
        y = float(rng.uniform(0.15, 0.25)) if corner < 2 else float(rng.uniform(0.78, 0.85))
        other = typical_thing(pick(rng, LARGER_CLASSES, but=(thing.shape,)), rng)
        others.append(replace(other, x=x, y=y, size=float(rng.uniform(0.13, 0.18))))
    return tuple(others)


def apply(factor: str, scene: Scene, rng: np.random.Generator, strength: float = 1.0) -> Scene:
    """Return a scene with one factor active, from barely (``strength`` 0) to as a top factor (1)."""
    thing = scene.thing
    if thing is None:
        raise ValueError("a factor needs a scene with an object")
    look, signs = LOOKS.get(thing.shape), [1.0 if high else -1.0 for high in rng.random(2) < 0.5]

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    match factor:
        case "pose":
            thing = replace(thing, angle=signs[0] * between(35, 35 + 130 * strength))
        case "background":
            scene = replace(scene, background=pick(rng, PLACES, but=look.places if look else (scene.background,)))
        case "pattern":
            thing = replace(thing, pattern=pick(rng, PATTERNS))
        case "color":
            thing = replace(thing, colour=pick(rng, COLOURS, but=look.colours if look else (thing.colour,)))
        case "smaller":
            size = max(thing.size * between(0.42, 0.72 - 0.2 * strength), min(thing.size, LEAST_SIZE))
            thing = replace(thing, size=size, x=between(0.24, 0.76), y=between(0.4, 0.76))
        case "shape":
            stretch, shear = between(0.35, 0.5 + 0.3 * strength), between(0.1, 0.35)
            thing = replace(thing, stretch=signs[0] * stretch, shear=signs[1] * shear)
        case "partial_view":
            edge, side = between(0.0, 0.16 - 0.1 * strength), int(rng.integers(3))
            thing = replace(thing, y=1 - edge) if side == 2 else replace(thing, x=edge if side else 1 - edge)
        case "subcategory":
            thing = replace(thing, rare=look is not None)
        case "texture":
            thing = replace(thing, material=pick(rng, ODD_MATERIALS))
        case "larger":
            thing = replace(thing, size=thing.size * between(1.4, 1.55 + 0.4 * strength))
        case "darker":
            scene = replace(scene, brightness=between(0.5 - 0.3 * strength, 0.6 - 0.2 * strength))
        case "brighter":
            scene = replace(scene, brightness=between(1.25 + 0.2 * strength, 1.4 + 0.5 * strength))
        case "object_blocking" | "person_blocking":
            scene = replace(scene, blocker="crate" if factor == "object_blocking" else "person")
        case "style":
            scene = replace(scene, style=pick(rng, STYLES))
        case "multiple_objects":
            scene = replace(scene, others=_others(thing, rng, 2 + round(strength)))
        case _:
            raise ValueError(f"no factor {factor!r}")
    return replace(scene, thing=thing)


def draw_factors(rng: np.random.Generator, *, more: float = 0.5) -> tuple[str, ...]:
    """Draw the active factors of a picture, the top one and ``more`` on average; empty for a prototype."""
    if rng.random() < PROTOTYPE_SHARE:
        return ()
    weights = np.array(tuple(_WEIGHTS.values()))
    n = 1 + min(3, int(rng.poisson(more)))
    chosen: list[str] = []
    for index in rng.choice(len(FACTORS), size=n, replace=False, p=weights / weights.sum()):
        name = FACTORS[int(index)]
        if not any(name in pair and pair & set(chosen) for pair in _EXCLUSIVE):
            chosen.append(name)
    return tuple(chosen)


def varied_scene(name: str, active: Iterable[str], rng: np.random.Generator, *, strength: float = 1.0) -> Scene:
    """Return a scene with the active factors: the first at ``strength``, the others weakly (0.3 of it)."""
    scene = typical_scene(name, rng)
    for place, factor in enumerate(active):
        scene = apply(factor, scene, rng, strength if place == 0 else 0.3 * strength)
    return scene
