"""The sixteen visual factors of ImageNet-X as changes of a scene.

A *typical* scene shows a class in its usual colour, material, kind and place, upright, of middling size: a
prototype. A factor changes just what it names. Every test picture that is not a prototype has one *top*
factor, applied strongly, and may have further ones, applied weakly; all of them count in the multi-factor
annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from examples.miniature.backgrounds import BACKGROUNDS, USUAL_BACKGROUNDS
from examples.miniature.materials import ODD_MATERIALS, PATTERNS
from examples.miniature.other_shapes import LARGER_CLASSES
from examples.miniature.scenes import COLOURS, STYLES, USUAL_COLOURS, Scene, Thing
from examples.miniature.shapes import CLASSES

T = TypeVar("T")
Factor = Callable[[Scene, Thing, np.random.Generator, float], Scene]


def pick(rng: np.random.Generator, choices: tuple[T, ...]) -> T:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def typical_thing(name: str, rng: np.random.Generator) -> Thing:
    """Return an object as it usually looks.

    Parameters
    ----------
    name
        Name in ``ALL_SHAPES``. What is not a class has no usual colour; it gets any.
    rng
        Where the choice comes from.
    """
    known = name in CLASSES
    return Thing(
        shape=name,
        kind=int(rng.integers(2)),
        x=float(rng.uniform(0.45, 0.55)),
        y=float(rng.uniform(0.52, 0.6)),
        size=float(rng.uniform(0.34, 0.41)),
        angle=float(rng.normal(0, 5)),
        mirrored=bool(rng.integers(2)),
        stretch=float(rng.normal(0, 0.06)),
        colour=pick(rng, USUAL_COLOURS[name] if known else tuple(COLOURS)),
        material=name if known else pick(rng, ("plain", *CLASSES)),
    )


def typical_scene(name: str, rng: np.random.Generator) -> Scene:
    """Return a prototype: no factor active."""
    places = USUAL_BACKGROUNDS.get(name, tuple(BACKGROUNDS))
    return Scene(
        thing=typical_thing(name, rng),
        background=pick(rng, places),
        brightness=float(rng.uniform(0.94, 1.06)),
        seed=int(rng.integers(2**31)),
    )


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _pose(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, thing=replace(thing, angle=_sign(rng) * float(rng.uniform(35, 35 + 130 * strength))))


def _background(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    usual = USUAL_BACKGROUNDS.get(thing.shape, (scene.background,))
    return replace(scene, background=pick(rng, tuple(name for name in BACKGROUNDS if name not in usual)))


def _pattern(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, thing=replace(thing, pattern=pick(rng, tuple(PATTERNS))))


def _color(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    usual = USUAL_COLOURS.get(thing.shape, (thing.colour,))
    return replace(scene, thing=replace(thing, colour=pick(rng, tuple(c for c in COLOURS if c not in usual))))


LEAST_SIZE = 0.1
"""Share of the picture below which nothing is made smaller: a usual thing never gets there, only one shrunk again."""


def _smaller(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    room = 0.24
    size = thing.size * float(rng.uniform(0.42, 0.72 - 0.2 * strength))
    return replace(
        scene,
        thing=replace(
            thing,
            size=max(size, min(thing.size, LEAST_SIZE)),
            x=float(rng.uniform(room, 1 - room)),
            y=float(rng.uniform(0.4, 1 - room)),
        ),
    )


def _shape(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    stretch = _sign(rng) * float(rng.uniform(0.35, 0.5 + 0.3 * strength))
    return replace(scene, thing=replace(thing, stretch=stretch, shear=_sign(rng) * float(rng.uniform(0.1, 0.35))))


def _partial_view(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    edge = float(rng.uniform(0.0, 0.16 - 0.1 * strength))
    side = int(rng.integers(3))
    if side == 2:
        return replace(scene, thing=replace(thing, y=1 - edge))
    return replace(scene, thing=replace(thing, x=edge if side else 1 - edge))


def _subcategory(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, thing=replace(thing, kind=2))


def _texture(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, thing=replace(thing, material=pick(rng, tuple(ODD_MATERIALS))))


def _larger(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    size = thing.size * float(rng.uniform(1.4, 1.55 + 0.4 * strength))
    return replace(scene, thing=replace(thing, size=size))


def _darker(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, brightness=float(rng.uniform(0.5 - 0.3 * strength, 0.6 - 0.2 * strength)))


def _brighter(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, brightness=float(rng.uniform(1.25 + 0.2 * strength, 1.4 + 0.5 * strength)))


def _object_blocking(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, blocker="object")


def _person_blocking(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, blocker="person")


def _style(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    return replace(scene, style=pick(rng, STYLES))


def _multiple_objects(scene: Scene, thing: Thing, rng: np.random.Generator, strength: float) -> Scene:
    others = []
    for corner in rng.permutation(4)[: 2 + round(strength)]:
        name = pick(rng, tuple(c for c in LARGER_CLASSES if c != thing.shape))
        x = float(rng.uniform(0.12, 0.2)) if corner % 2 else float(rng.uniform(0.8, 0.88))
        y = float(rng.uniform(0.15, 0.25)) if corner < 2 else float(rng.uniform(0.78, 0.85))
        others.append(replace(typical_thing(name, rng), x=x, y=y, size=float(rng.uniform(0.13, 0.18))))
    return replace(scene, others=tuple(others))


STUDY_FACTORS: tuple[str, ...] = (
    "pose",
    "background",
    "pattern",
    "color",
    "smaller",
    "shape",
    "partial_view",
    "subcategory",
    "texture",
    "larger",
)
"""The ten factors of the study, in ImageNet-X's order and spelling."""

OTHER_FACTORS: tuple[str, ...] = (
    "darker",
    "object_blocking",
    "person_blocking",
    "style",
    "brighter",
    "multiple_objects",
)

FACTORS: tuple[str, ...] = STUDY_FACTORS + OTHER_FACTORS

_APPLY: dict[str, Factor] = {
    "pose": _pose,
    "background": _background,
    "pattern": _pattern,
    "color": _color,
    "smaller": _smaller,
    "shape": _shape,
    "partial_view": _partial_view,
    "subcategory": _subcategory,
    "texture": _texture,
    "larger": _larger,
    "darker": _darker,
    "object_blocking": _object_blocking,
    "person_blocking": _person_blocking,
    "style": _style,
    "brighter": _brighter,
    "multiple_objects": _multiple_objects,
}

_EXCLUSIVE: tuple[frozenset[str], ...] = (
    frozenset({"smaller", "larger"}),
    frozenset({"smaller", "partial_view"}),
    frozenset({"darker", "brighter"}),
    frozenset({"object_blocking", "person_blocking"}),
    frozenset({"pattern", "texture"}),
    frozenset({"style", "texture"}),  # a cartoon has no surfaces
)

_TOP_WEIGHTS: dict[str, float] = {
    "pose": 0.17,
    "background": 0.16,
    "pattern": 0.11,
    "color": 0.11,
    "smaller": 0.08,
    "shape": 0.06,
    "partial_view": 0.06,
    "subcategory": 0.06,
    "texture": 0.05,
    "larger": 0.045,
    "darker": 0.02,
    "object_blocking": 0.015,
    "person_blocking": 0.015,
    "style": 0.015,
    "brighter": 0.015,
    "multiple_objects": 0.015,
}
PROTOTYPE_SHARE = 0.2


def apply(factor: str, scene: Scene, rng: np.random.Generator, strength: float = 1.0) -> Scene:
    """Return the scene with one factor active.

    Parameters
    ----------
    factor
        One of ``FACTORS``.
    scene
        A scene with a labelled object.
    rng
        Where direction and amount come from.
    strength
        0 (barely) to 1 (as a top factor).
    """
    if scene.thing is None:
        raise ValueError("a factor needs a scene with an object")
    return _APPLY[factor](scene, scene.thing, rng, strength)


def draw_factors(rng: np.random.Generator, *, more: float = 0.5) -> tuple[str, ...]:
    """Draw the active factors of a picture, the top one first; empty for a prototype.

    Parameters
    ----------
    rng
        Where the choice comes from.
    more
        Mean number of factors besides the top one.
    """
    if rng.random() < PROTOTYPE_SHARE:
        return ()
    names, weights = tuple(_TOP_WEIGHTS), np.array(tuple(_TOP_WEIGHTS.values()))
    order = rng.choice(len(names), size=1 + min(3, int(rng.poisson(more))), replace=False, p=weights / weights.sum())
    chosen: list[str] = []
    for index in order:
        name = names[int(index)]
        if not any(name in pair and pair & set(chosen) for pair in _EXCLUSIVE):
            chosen.append(name)
    return tuple(chosen)


def varied_scene(name: str, active: tuple[str, ...], rng: np.random.Generator, *, strength: float = 1.0) -> Scene:
    """Return a scene with the active factors: the first at ``strength``, the others weakly (0.3 of it)."""
    scene = typical_scene(name, rng)
    for place, factor in enumerate(active):
        scene = apply(factor, scene, rng, strength if place == 0 else 0.3 * strength)
    return scene
