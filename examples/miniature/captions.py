"""Captions of a scene: clean ones that say what is there, and the noisy ones of a web-like source."""

from __future__ import annotations

import numpy as np

from examples.miniature.backgrounds import PLACE_PHRASES
from examples.miniature.factors import pick
from examples.miniature.scenes import Scene, Thing
from examples.miniature.shapes import CLASSES, KIND_NAMES

_MEDIA: dict[str, tuple[str, ...]] = {
    "photo": ("a photo", "a picture", "a photo"),
    "drawing": ("a drawing", "a pencil drawing"),
    "cartoon": ("a cartoon", "a drawing"),
    "painting": ("a painting", "an artwork"),
    "mosaic": ("a mosaic", "an artwork"),
    "sketch": ("a sketch", "a line drawing"),
}
_PLAIN = (
    "{medium} of {a}",
    "{medium} of the {name}",
    "a {adjective} {bare} of {a}",
    "a {adjective} {bare} of the {name}",
    "a {bare} of one {name}",
    "a {bare} of my {name}",
    "{a}",
    "the {name}, {bare}",
    "this is {a}",
)
_ADJECTIVES = (
    "bad",
    "good",
    "blurry",
    "clean",
    "cropped",
    "close-up",
    "bright",
    "dark",
    "nice",
    "cool",
    "weird",
    "dirty",
    "clear",
    "low resolution",
    "large",
    "small",
    "plain",
    "simple",
)
"""Words that say little, as in the prompts that zero-shot models are asked with."""

_NOISE = ("image {}", "untitled {}", "click to enlarge {}", "buy now, free shipping {}", "holiday {} album")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _size_word(thing: Thing) -> str:
    return "small" if thing.size < 0.3 else "large" if thing.size > 0.45 else ""


def describe(thing: Thing, *, colour: bool = True, kind: bool = False, size: bool = False) -> str:
    """Return a noun phrase: ``a small red sailing boat``."""
    words = [_size_word(thing) if size else "", thing.colour if colour else ""]
    if thing.pattern and colour:
        words.append({"stripes": "striped", "dots": "dotted", "checks": "checked"}[thing.pattern])
    if kind and thing.shape in KIND_NAMES:
        words.append(KIND_NAMES[thing.shape][thing.kind])
    return _article(" ".join(word for word in (*words, thing.shape) if word))


def captions(scene: Scene, rng: np.random.Generator, n: int = 4) -> tuple[str, ...]:
    """Return ``n`` clean captions, from the plainest to the fullest.

    Every one names the labelled object; the first two say no more than that.
    """
    thing = scene.thing
    if thing is None:
        raise ValueError("a caption needs a scene with an object")
    medium = pick(rng, _MEDIA[scene.style])
    place = PLACE_PHRASES.get(scene.background, "in front of a wall")
    light = "a dark " if scene.brightness < 0.7 else "a bright " if scene.brightness > 1.2 else ""
    lit = f"{light}{medium.split(' ', 1)[1]}" if light else medium
    noun = medium.split(" ", 1)[1]

    def plain() -> str:
        words = {"medium": medium, "bare": noun, "adjective": pick(rng, _ADJECTIVES)}
        return pick(rng, _PLAIN).format(a=_article(thing.shape), name=thing.shape, **words)

    texts = [
        plain(),
        plain(),
        f"{lit} of {describe(thing)}",
        f"{describe(thing, kind=True)} {place}",
        f"{medium} of {describe(thing, size=True, kind=True)} {place}",
        f"{describe(thing, size=True)} {place}, {lit.split(' ', 1)[1]}",
    ]
    return tuple(texts[:n])


def web_captions(scene: Scene, rng: np.random.Generator, n: int = 4) -> tuple[str, ...]:
    """Return ``n`` captions as found on the web: most describe the picture, some say nothing, some lie."""
    out = []
    for text in captions(scene, rng, n):
        dice = rng.random()
        if dice < 0.08:
            out.append(pick(rng, _NOISE).format(int(rng.integers(1000, 10000))))
        elif dice < 0.14 and scene.thing is not None:
            out.append(text.replace(scene.thing.shape, pick(rng, CLASSES)))
        else:
            out.append(text)
    return tuple(out)
