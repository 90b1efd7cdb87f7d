"""The datasets: which pictures each holds, from a seed a picture, and how they are written.

``val`` is the in-distribution test set, annotated with all sixteen factors. ``train`` is drawn like it, with captions:
the training set, and the source *wit*. ``web`` is the source *laion*: fourteen objects, any style, place and material,
noisy captions. Shifted are ``v2`` (a little harder), ``sketch`` (pencil on white), ``rendition``, ``hard`` (six
classes, three strong factors at once), ``kinds`` (super-classes) and ``cue-conflict`` (outline of one class, surface of
another). Near to the classes are ``ood-shapes``, far ``textures``, ``noise`` and ``scenes``. ``captions`` is for
retrieval.
"""

from __future__ import annotations

import csv
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from examples.miniature.captions import captions, web_captions
from examples.miniature.drawing import COLOURS, SIDE, STYLES, Scene, render
from examples.miniature.factors import (
    CLASS_MATERIALS,
    FACTORS,
    STUDY_FACTORS,
    apply,
    draw_factors,
    pick,
    typical_scene,
    varied_scene,
)
from examples.miniature.shapes import CLASS_SPACE, CLASSES, LARGER_CLASSES, LOOKS, UNSEEN
from examples.miniature.surfaces import ODD_MATERIALS, PLACES

STAMP = ".stamp"
"""File in a finished dataset's folder: what it was made from. Image readers skip hidden files."""

HARD_CLASSES = ("boat", "bottle", "fish", "house", "mushroom", "umbrella")

KINDS: dict[str, tuple[str, ...]] = {
    "vehicle": ("boat", "car"),
    "vessel": ("bottle", "cup"),
    "plant": ("apple", "mushroom", "tree"),
    "animal": ("fish",),
}
"""Super-class and its members; ``house`` and ``umbrella`` belong to none."""

NOISES = ("gaussian", "salt", "cloud")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image to be written, and what is known of it."""

    path: str  # below the dataset's folder
    look: Scene | tuple[str, int]  # a scene, or the kind and seed of noise
    label: str = ""
    columns: Mapping[str, str | int] = field(default_factory=dict)
    captions: tuple[str, ...] = ()


Maker = Callable[[int, np.random.Generator], Picture]
"""Function of a picture's index and generator."""


def _noise(kind: str, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        pixels = rng.normal(128, rng.uniform(25, 70), (SIDE, SIDE, 3))
    elif kind == "salt":
        pixels = np.full((SIDE, SIDE, 3), rng.uniform(40, 215, 3))
        hit = rng.random((SIDE, SIDE))
        pixels[hit < 0.12], pixels[hit > 0.88] = 0, 255
    else:
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1)))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """Render a picture: ``(SIDE, SIDE, 3)`` uint8, or ``(SIDE, SIDE)`` where it is a sketch (a greyscale file)."""
    if isinstance(picture.look, tuple):
        return _noise(*picture.look)
    pixels, _ = render(picture.look)
    return pixels[..., 0] if picture.look.style == "sketch" else pixels


def _of(name: str, index: int, look: Scene, suffix: str = "jpg") -> Picture:
    return Picture(path=f"{name}/{index:05d}.{suffix}", label=name, look=look)


def _turn(choices: tuple[str, ...], index: int) -> str:
    return choices[index % len(choices)]


def _labelled(
    strength: float, more: float = 0.5, only: tuple[str, ...] = FACTORS, styles: tuple[str, ...] = ("photo",)
) -> Maker:
    """Return the function of an ordinary picture of a class, annotated with its factors, with captions."""

    def picture(index: int, rng: np.random.Generator) -> Picture:
        name, style = _turn(CLASSES, index), _turn(styles, index // len(CLASSES))
        active = tuple(factor for factor in draw_factors(rng, more=more) if factor in only)
        scene = varied_scene(name, active, rng, strength=strength)
        if style != "photo":
            scene = replace(scene, style=style, background="studio" if style == "sketch" else scene.background)
        columns: dict[str, str | int] = {factor: int(factor in active) for factor in FACTORS}
        columns |= {"top_factor": active[0] if active else "", "prototype": int(not active)}
        found = _of(name, index, scene, "png" if style == "sketch" else "jpg")
        return replace(found, columns=columns, captions=captions(scene, rng))

    return picture


def _web(index: int, rng: np.random.Generator) -> Picture:
    name = _turn(LARGER_CLASSES, index)
    scene = varied_scene(name, draw_factors(rng, more=0.7), rng, strength=0.6)
    if rng.random() < 0.2:
        scene = replace(scene, background=pick(rng, PLACES))
    for factor, share in (("color", 0.15), ("texture", 0.1), ("style", 0.3)):
        if rng.random() < share:
            scene = apply(factor, scene, rng)
    return replace(_of(name, index, scene), captions=web_captions(scene, rng))


def _hard(index: int, rng: np.random.Generator) -> Picture:
    name = _turn(HARD_CLASSES, index)
    scene = typical_scene(name, rng)
    pool = ("pose", "background", "smaller", "color", "texture", "shape", "partial_view", "darker")
    for factor in rng.choice(pool, size=3, replace=False):
        scene = apply(str(factor), scene, rng, 0.8)
    return _of(name, index, scene)


def _kinds(index: int, rng: np.random.Generator) -> Picture:
    kind = _turn(tuple(KINDS), index)
    member = _turn(KINDS[kind], index // len(KINDS))
    scene = varied_scene(member, ("background", "pose"), rng, strength=0.7)
    columns = {"kind": kind, "member": member}
    return replace(_of(kind, index, scene), label=str(index % len(KINDS)), columns=columns)


def _cue_conflict(index: int, rng: np.random.Generator) -> Picture:
    turn, place = divmod(index, len(CLASSES))
    shape = CLASSES[place]
    texture = CLASSES[(place + 1 + turn % (len(CLASSES) - 1)) % len(CLASSES)]
    scene, look = typical_scene(shape, rng), LOOKS[texture]
    assert scene.thing is not None
    size = float(rng.uniform(0.36, 0.42))
    thing = replace(scene.thing, material=look.material, colour=pick(rng, look.colours), size=size)
    scene = replace(scene, thing=thing, background="studio" if index % 2 else f"material:{look.material}:grey")
    path = f"{shape}/{shape}{turn + 1}-{texture}{turn + 1}.png"
    return Picture(path=path, label=shape, look=scene, columns={"shape": shape, "texture": texture})


def _ood_shapes(index: int, rng: np.random.Generator) -> Picture:
    name = _turn(UNSEEN, index)
    scene = typical_scene(name, rng)
    assert scene.thing is not None
    scene = replace(scene, thing=replace(scene.thing, material=pick(rng, CLASS_MATERIALS)))
    return Picture(path=f"{name}-{index:05d}.jpg", look=scene, columns={"object": name})


def _textures(index: int, rng: np.random.Generator) -> Picture:
    name = _turn(tuple(ODD_MATERIALS), index)
    scene = Scene(thing=None, background=f"material:{name}:{pick(rng, COLOURS)}", seed=int(rng.integers(2**31)))
    return Picture(path=f"{name}-{index:05d}.jpg", look=scene, columns={"texture": name})


def _noises(index: int, rng: np.random.Generator) -> Picture:
    kind = _turn(NOISES, index)
    look = (kind, int(rng.integers(2**31)))
    return Picture(path=f"{kind}-{index:05d}.png", look=look, columns={"kind": kind})


def _scenes(index: int, rng: np.random.Generator) -> Picture:
    place = _turn(tuple(PLACES), index)
    scene = Scene(thing=None, background=place, seed=int(rng.integers(2**31)))
    return Picture(path=f"{place}-{index:05d}.jpg", look=scene, columns={"place": place})


def _captions(index: int, rng: np.random.Generator) -> Picture:
    scene = varied_scene(_turn(CLASSES, index), draw_factors(rng, more=1.2), rng, strength=0.6)
    return Picture(path=f"{index:05d}.jpg", look=scene, captions=captions(scene, rng, 5)[2:])


@dataclass(frozen=True)
class Dataset:
    """How many pictures a dataset has, what makes one, its lines in the list."""

    n: int
    picture: Maker
    toml: str = ""


_OUTLINE = ("pose", "smaller", "shape", "subcategory", "larger")
"""Factors that a sketch can show."""

_SHIFT = 'role = "shift"\nshift_of = "mini-val"'
_MAP = f"{json.dumps(list(KINDS.values()))}  # {', '.join(KINDS)}"
_OOD = 'role = "ood"\nlabels = "none"\ndistance'

DATASETS: dict[str, Dataset] = {
    "train": Dataset(2000, _labelled(0.5), 'role = "reference"\nper_class = 50'),
    "web": Dataset(2100, _web),
    "val": Dataset(1600, _labelled(0.5), 'role = "id"\nmanifest = "val/manifest.csv"'),
    "v2": Dataset(600, _labelled(0.7, 1.0), _SHIFT),
    "sketch": Dataset(400, _labelled(0.6, only=_OUTLINE, styles=("sketch",)), _SHIFT),
    "rendition": Dataset(400, _labelled(0.6, only=STUDY_FACTORS, styles=STYLES), _SHIFT),
    "hard": Dataset(240, _hard, f"{_SHIFT}\nclass_mask = {json.dumps(HARD_CLASSES)}"),
    "kinds": Dataset(
        240,
        _kinds,
        f'{_SHIFT}\nmanifest = "kinds/manifest.csv"\nlabels = "index"\nclass_map = {_MAP}\nclass_map_rule = "max"',
    ),
    "cue-conflict": Dataset(360, _cue_conflict, f'{_SHIFT}\nmanifest = "cue-conflict/manifest.csv"  # label = shape'),
    "ood-shapes": Dataset(240, _ood_shapes, f'{_OOD} = "near"'),
    "textures": Dataset(240, _textures, f'{_OOD} = "far"'),
    "noise": Dataset(240, _noises, f'{_OOD} = "far"'),
    "scenes": Dataset(240, _scenes, f'{_OOD} = "far"'),
    "captions": Dataset(
        240,
        _captions,
        'role = "pairs"\nlabels = "none"\nmanifest = "captions/captions.csv"\ncaptions = "caption"',
    ),
}
"""Folder -> what is in it, and, but for ``web``, what ``datasets.toml`` says of it as ``mini-FOLDER``."""


def datasets_toml() -> str:
    """Return the text of the miniature's ``datasets.toml``."""
    parts = ["# The miniature study: rendered pictures of ten classes. Its numbers mean nothing outside it.\n"]
    for folder, dataset in sorted(DATASETS.items(), key=lambda item: item[0] == "train"):
        if dataset.toml:
            keys = dataset.toml.replace('manifest = "', 'manifest = "datasets/')
            if '"pairs"' not in keys:
                keys += f'\nclasses = {json.dumps(CLASSES)}\nclass_space = "{CLASS_SPACE}"'
            parts.append(f'[mini-{folder}]\npath = "datasets/{folder}"\n{keys}\nlicence = "MIT"\n')
    return "\n".join(parts)


def pictures(name: str, n: int) -> Iterator[Picture]:
    """Yield a dataset's first n pictures; each depends on nothing but the dataset's name and its index."""
    for index in range(n):
        yield DATASETS[name].picture(index, np.random.default_rng((zlib.crc32(name.encode()), index)))


def write_dataset(folder: Path, name: str, n: int, stamp: str) -> None:
    """Render and write a dataset: next to its place, moved there by one rename, in place of an older one."""
    staged = folder.with_name(f".staged-{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    written = list(pictures(name, n))
    for picture in written:
        target = staged / picture.path
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels_of(picture)).save(target, quality=95, subsampling=0)  # of JPEG; PNG takes neither
    if written[0].captions:
        rows = [(picture.path, text) for picture in written for text in picture.captions]
        _write_csv(staged / "captions.csv", [("path", "caption"), *rows])
    if written[0].columns:
        table = [(p.path, p.label, *p.columns.values()) for p in written]
        _write_csv(staged / "manifest.csv", [("path", "label", *written[0].columns), *table])
    (staged / STAMP).write_text(stamp, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def _write_csv(path: Path, rows: list[tuple[str | int, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
