"""What each dataset of the miniature shows: a list of pictures to render, from a seed a picture.

=================  =====================================================================================
``train``          scenes as in ``val``, with captions: the training set and the source *wit*
``web``            fourteen objects, any style, place and material, noisy captions: the source *laion*
``val``            the in-distribution test set, annotated with all sixteen factors
``v2``             drawn again, a little harder
``sketch``         pencil on white, greyscale files
``rendition``      drawings, cartoons, paintings, mosaics
``hard``           six classes, two or three strong factors at once
``kinds``          four super-classes of eight of the ten classes (a many-to-one class map)
``cue-conflict``   outline of one class, surface and colour of another
``ood-shapes``     six kinds of objects that no model has seen (near)
``textures``       plain surfaces of no class
``noise``          noise of four sorts
``scenes``         places without an object
``captions``       pictures with four captions each, for retrieval
=================  =====================================================================================
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from examples.miniature.backgrounds import BACKGROUNDS
from examples.miniature.captions import captions, web_captions
from examples.miniature.factors import (
    FACTORS,
    STUDY_FACTORS,
    apply,
    draw_factors,
    pick,
    typical_scene,
    varied_scene,
)
from examples.miniature.materials import CLASS_MATERIALS, ODD_MATERIALS
from examples.miniature.other_shapes import LARGER_CLASSES, UNSEEN
from examples.miniature.scenes import COLOURS, SIDE, STYLES, USUAL_COLOURS, Scene, render
from examples.miniature.shapes import CLASSES

WORLD_VERSION = 4
"""Raised by hand whenever pixels, labels or captions change, so that an older build is made again."""

STRENGTH = 0.5
"""Of the top factor in the training and the test set, which are drawn alike."""

HARD_CLASSES = ("boat", "bottle", "fish", "house", "mushroom", "umbrella")

KINDS_MAP: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vehicle", ("boat", "car")),
    ("vessel", ("bottle", "cup")),
    ("plant", ("apple", "mushroom", "tree")),
    ("animal", ("fish",)),
)
"""Super-class and its members; ``house`` and ``umbrella`` belong to none."""

Value = str | int


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A picture of noise."""

    kind: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image to be written: its path below the dataset's folder, label, look, and what is known of it."""

    path: str
    look: Scene | Noise
    label: str = ""
    columns: Mapping[str, Value] = field(default_factory=dict)
    captions: tuple[str, ...] = ()


def _noise(noise: Noise) -> NDArray[np.uint8]:
    rng = np.random.default_rng(noise.seed)
    if noise.kind == "gaussian":
        pixels = rng.normal(128, rng.uniform(25, 70), (SIDE, SIDE, 3))
    elif noise.kind == "grey":
        pixels = np.repeat(rng.uniform(0, 255, (SIDE, SIDE, 1)), 3, axis=2)
    elif noise.kind == "salt":
        pixels = np.full((SIDE, SIDE, 3), rng.uniform(40, 215, 3))
        hit = rng.random((SIDE, SIDE))
        pixels[hit < 0.12], pixels[hit > 0.88] = 0, 255
    else:  # cloud
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        cloud = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
        return np.asarray(cloud)
    return np.clip(pixels, 0, 255).astype(np.uint8)


NOISE_KINDS = ("gaussian", "grey", "salt", "cloud")


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """Render a picture: ``(64, 64, 3)`` uint8, or ``(64, 64)`` where it is a sketch (a greyscale file)."""
    if isinstance(picture.look, Noise):
        return _noise(picture.look)
    pixels, _ = render(picture.look)
    return pixels[..., 0] if picture.look.style == "sketch" else pixels


def picture_rng(dataset: str, index: int) -> np.random.Generator:
    """Return the generator of one picture; it depends on nothing but the dataset's name and the index."""
    return np.random.default_rng((WORLD_VERSION, zlib.crc32(dataset.encode()), index))


def _named(name: str, index: int, rng_scene: Scene, suffix: str = "jpg", **more: object) -> Picture:
    return Picture(path=f"{name}/{index:05d}.{suffix}", label=name, look=rng_scene, **more)  # type: ignore[arg-type]


def _train(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("train", index), CLASSES[index % len(CLASSES)]
        scene = varied_scene(name, draw_factors(rng), rng, strength=STRENGTH)
        yield _named(name, index, scene, captions=captions(scene, rng))


def _web(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("web", index), LARGER_CLASSES[index % len(LARGER_CLASSES)]
        scene = varied_scene(name, draw_factors(rng, more=0.7), rng, strength=0.6)
        if rng.random() < 0.2:
            scene = replace(scene, background=pick(rng, tuple(BACKGROUNDS)))
        if rng.random() < 0.15:
            scene = apply("color", scene, rng)
        if rng.random() < 0.1:
            scene = apply("texture", scene, rng)
        if rng.random() < 0.25:
            scene = replace(scene, style=pick(rng, STYLES))
        elif rng.random() < 0.1:
            scene = replace(scene, style="drawing", background="studio")
        yield _named(name, index, scene, captions=web_captions(scene, rng))


def annotation(active: tuple[str, ...]) -> dict[str, Value]:
    """Return a row of the factor annotation: 0/1 for each of the sixteen, the top one, and ``prototype``."""
    flags: dict[str, Value] = {factor: int(factor in active) for factor in FACTORS}
    return flags | {"top_factor": active[0] if active else "", "prototype": int(not active)}


def _val(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("val", index), CLASSES[index % len(CLASSES)]
        active = draw_factors(rng)
        yield _named(name, index, varied_scene(name, active, rng, strength=STRENGTH), columns=annotation(active))


def _v2(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("v2", index), CLASSES[index % len(CLASSES)]
        yield _named(name, index, varied_scene(name, draw_factors(rng, more=1.0), rng, strength=0.7))


def _sketch(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("sketch", index), CLASSES[index % len(CLASSES)]
        active = tuple(f for f in draw_factors(rng) if f in ("pose", "smaller", "shape", "subcategory", "larger"))
        scene = replace(varied_scene(name, active, rng, strength=0.6), style="sketch", background="studio")
        yield _named(name, index, scene, suffix="png")


def _rendition(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("rendition", index), CLASSES[index % len(CLASSES)]
        active = tuple(f for f in draw_factors(rng) if f in STUDY_FACTORS)
        scene = varied_scene(name, active, rng, strength=0.6)
        yield _named(name, index, replace(scene, style=STYLES[index // len(CLASSES) % len(STYLES)]))


def _hard(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("hard", index), HARD_CLASSES[index % len(HARD_CLASSES)]
        scene = typical_scene(name, rng)
        pool = ("pose", "background", "smaller", "color", "texture", "shape", "partial_view", "darker")
        for factor in rng.choice(pool, size=3, replace=False):
            scene = apply(str(factor), scene, rng, 0.8)
        yield _named(name, index, scene)


def _kinds(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng = picture_rng("kinds", index)
        number = index % len(KINDS_MAP)
        kind, members = KINDS_MAP[number]
        name = members[index // len(KINDS_MAP) % len(members)]
        scene = varied_scene(name, ("background", "pose"), rng, strength=0.7)
        path = f"{kind}/{index:05d}.jpg"
        yield Picture(path=path, label=str(number), look=scene, columns={"kind": kind, "member": name})


def _cue_conflict(n: int) -> Iterator[Picture]:
    numbers: dict[str, int] = {}
    others = len(CLASSES) - 1
    for index in range(n):
        rng = picture_rng("cue-conflict", index)
        shape = CLASSES[index % len(CLASSES)]
        texture = CLASSES[(index + 1 + index // len(CLASSES) % others) % len(CLASSES)]
        scene = typical_scene(shape, rng)
        assert scene.thing is not None
        colour = pick(rng, USUAL_COLOURS[texture])
        scene = replace(
            scene,
            thing=replace(scene.thing, material=texture, colour=colour, size=float(rng.uniform(0.36, 0.42))),
            background="studio" if index % 2 else f"material:{texture}:grey",
        )
        numbers[shape] = numbers.get(shape, 0) + 1
        numbers[f"texture {texture}"] = numbers.get(f"texture {texture}", 0) + 1
        path = f"{shape}/{shape}{numbers[shape]}-{texture}{numbers[f'texture {texture}']}.png"
        yield Picture(path=path, label=shape, look=scene, columns={"shape": shape, "texture": texture})


def _ood_shapes(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("ood-shapes", index), tuple(UNSEEN)[index % len(UNSEEN)]
        scene = typical_scene(name, rng)
        assert scene.thing is not None
        thing = replace(scene.thing, material=pick(rng, ("plain", *CLASS_MATERIALS)))
        yield Picture(path=f"{name}-{index:05d}.jpg", look=replace(scene, thing=thing), columns={"object": name})


def _textures(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("textures", index), tuple(ODD_MATERIALS)[index % len(ODD_MATERIALS)]
        fill = f"material:{name}:{pick(rng, tuple(COLOURS))}"
        scene = Scene(thing=None, background=fill, seed=int(rng.integers(2**31)))
        yield Picture(path=f"{name}-{index:05d}.jpg", look=scene, columns={"texture": name})


def _noises(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, kind = picture_rng("noise", index), NOISE_KINDS[index % len(NOISE_KINDS)]
        look = Noise(kind=kind, seed=int(rng.integers(2**31)))
        yield Picture(path=f"{kind}-{index:05d}.png", look=look, columns={"kind": kind})


def _scenes(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, place = picture_rng("scenes", index), tuple(BACKGROUNDS)[index % len(BACKGROUNDS)]
        scene = Scene(thing=None, background=place, seed=int(rng.integers(2**31)))
        yield Picture(path=f"{place}-{index:05d}.jpg", look=scene, columns={"place": place})


def _captions(n: int) -> Iterator[Picture]:
    for index in range(n):
        rng, name = picture_rng("captions", index), CLASSES[index % len(CLASSES)]
        scene = varied_scene(name, draw_factors(rng, more=1.2), rng, strength=0.6)
        yield Picture(path=f"{index:05d}.jpg", look=scene, captions=captions(scene, rng, 6)[2:])


PICTURES: dict[str, Callable[[int], Iterator[Picture]]] = {
    "train": _train,
    "web": _web,
    "val": _val,
    "v2": _v2,
    "sketch": _sketch,
    "rendition": _rendition,
    "hard": _hard,
    "kinds": _kinds,
    "cue-conflict": _cue_conflict,
    "ood-shapes": _ood_shapes,
    "textures": _textures,
    "noise": _noises,
    "scenes": _scenes,
    "captions": _captions,
}
"""Folder name -> function of the number of pictures."""


def annotations_jsonl(pictures: list[Picture]) -> str:
    """Return the factor annotation in ImageNet-X's form: one JSON object a line.

    ``file_name`` (path below the dataset's folder), ``class`` (index), ``metaclass``, one 0/1 a factor for
    all active factors, and besides ImageNet-X's keys ``top_factor`` and ``prototype``.
    """
    lines = []
    metaclass = {member: kind for kind, members in KINDS_MAP for member in members}
    for picture in pictures:
        head = {"file_name": picture.path, "class": CLASSES.index(picture.label)}
        lines.append(json.dumps(head | {"metaclass": metaclass.get(picture.label, "other")} | dict(picture.columns)))
    return "\n".join(lines) + "\n"
