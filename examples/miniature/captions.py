"""Captions of a scene: clean ones that say what is there, and the noisy ones of a web-like source."""

from __future__ import annotations

import numpy as np

from examples.miniature.drawing import Scene, Thing
from examples.miniature.factors import pick
from examples.miniature.shapes import CLASSES, LOOKS
from examples.miniature.surfaces import PLACES

_MEDIA = {
    "photo": ("photo", "picture", "photo"), "drawing": ("drawing", "pencil drawing"), "cartoon": ("cartoon", "drawing"),
    "mosaic": ("mosaic", "artwork"), "sketch": ("sketch", "line drawing"),
}  # fmt: skip
_PLAIN = ("a {} of {a}", "a {} of the {name}", "a {word} {} of {a}", "a {word} {} of the {name}", "{a}")
_WORDS = ("bad", "good", "blurry", "clean", "cropped", "close-up", "bright", "dark", "nice", "weird", "large", "small")
"""Words that say little, as in the prompts that zero-shot models are asked with."""

_NOISE = ("image {}", "untitled {}", "click to enlarge {}", "buy now, free shipping {}", "holiday {} album")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def describe(thing: Thing, *, fully: bool = False) -> str:
    """Return a noun phrase: ``a red boat``; fully, ``a small red striped rowing boat``."""
    words = [thing.colour, thing.pattern]
    if fully:
        size = "small" if thing.size < 0.3 else "large" if thing.size > 0.45 else ""
        words = [size, *words, LOOKS[thing.shape].rare if thing.rare else ""]
    return _article(" ".join(word for word in (*words, thing.shape) if word))


def captions(scene: Scene, rng: np.random.Generator, n: int = 4) -> tuple[str, ...]:
    """Return up to five clean captions, from the plainest to the fullest; each names the labelled object."""
    thing = scene.thing
    if thing is None:
        raise ValueError("a caption needs a scene with an object")
    medium = pick(rng, _MEDIA[scene.style])
    light = "dark " if scene.brightness < 0.7 else "bright " if scene.brightness > 1.2 else ""
    place = PLACES[scene.background].phrase if scene.background in PLACES else "in front of a wall"
    plain = (pick(rng, _PLAIN) for _ in range(2))
    texts = [
        *(text.format(medium, a=_article(thing.shape), name=thing.shape, word=pick(rng, _WORDS)) for text in plain),
        f"{_article(light + medium)} of {describe(thing)}",
        f"{_article(medium)} of {describe(thing, fully=True)} {place}",
        f"{describe(thing, fully=True)} {place}, {light}{medium}",
    ]
    return tuple(texts[:n])


def web_captions(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Return captions as found on the web: most describe the picture, some say nothing, some lie."""
    out = []
    for text in captions(scene, rng):
        dice = rng.random()
        if dice < 0.08:
            text = pick(rng, _NOISE).format(int(rng.integers(1000, 10000)))
        elif dice < 0.14 and scene.thing is not None:
            text = text.replace(scene.thing.shape, pick(rng, CLASSES))
        out.append(text)
    return tuple(out)
