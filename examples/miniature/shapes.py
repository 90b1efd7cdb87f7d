"""The objects: their outlines, read from ``shapes.txt``, and how each of the ten classes usually looks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROLES = ".BSADL"
NOTHING, BODY, SECOND, ACCENT, DARK, LIGHT = range(len(ROLES))
"""What a part is made of; ``NOTHING`` cuts a hole, ``BODY`` wears the class's material and pattern."""

CLASS_SPACE = "miniature-10"


class Part(NamedTuple):
    """One polygon and what it is made of."""

    role: int
    points: NDArray[np.float64]


class Look(NamedTuple):
    """How a class usually looks: body colours, colours of its other parts, surface, places, name of its rare kind."""

    colours: tuple[str, ...]
    accent: str
    second: str
    material: str
    places: tuple[str, ...]
    rare: str


LOOKS = {
    "apple": Look(("red", "green"), "green", "white", "speckle", ("kitchen", "meadow"), "halved"),
    "boat": Look(("white", "brown"), "red", "brown", "planks", ("sea",), "rowing"),
    "bottle": Look(("green", "brown"), "brown", "white", "glass", ("kitchen",), "waisted"),
    "car": Look(("blue", "red"), "yellow", "grey", "metal", ("street", "desert"), "racing"),
    "cup": Look(("white", "blue"), "orange", "white", "rings", ("kitchen", "studio"), "tall"),
    "fish": Look(("orange", "grey"), "yellow", "white", "scales", ("sea",), "puffer"),
    "house": Look(("yellow", "orange"), "brown", "grey", "bricks", ("meadow", "snow"), "flat"),
    "mushroom": Look(("red", "brown"), "orange", "white", "spots", ("forest",), "funnel"),
    "tree": Look(("green",), "orange", "brown", "leaves", ("meadow", "snow"), "palm"),
    "umbrella": Look(("purple", "pink"), "yellow", "brown", "wedges", ("street", "desert"), "furled"),
}

CLASSES = tuple(LOOKS)
"""The class space, in index order."""

LARGER_CLASSES = (*CLASSES, "flower", "hat", "key", "kite")
"""The larger class space of the web-like source: the ten first, so that indices agree."""

UNSEEN = ("chair", "duck", "guitar", "ladder", "lamp", "rocket")
"""Objects of the near out-of-distribution set; no model has seen one."""


def _oval(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 3.6) -> NDArray[np.float64]:
    steps = max(8, int((stop - start) * 100 / 12))
    angles = np.radians(100 * np.linspace(start, stop, steps, endpoint=stop - start < 3.6))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def _parts(text: str) -> list[Part]:
    """Return the polygons of one part: several where it is a line, a rectangle a segment and a disc a joint."""
    letter, form, *words = text.split()
    role, numbers = ROLES.index(letter), [int(word) / 100 for word in words]
    if form == "poly":
        return [Part(role, np.array(numbers).reshape(-1, 2))]
    if form == "box":
        left, top, right, bottom = numbers
        return [Part(role, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))]
    if form == "oval":
        return [Part(role, _oval(*numbers))]
    width, points = numbers[0], np.array(numbers[1:]).reshape(-1, 2)
    found = [Part(role, _oval(x, y, width / 2, width / 2)) for x, y in points[1:-1]]
    for start, stop in pairwise(points):
        along = (stop - start) / max(float(np.hypot(*(stop - start))), 1e-9)
        across = np.array([-along[1], along[0]]) * width / 2
        found.append(Part(role, np.array([start + across, stop + across, stop - across, start - across])))
    return found


def _figures() -> dict[str, list[Part]]:
    found = {}
    for line in Path(__file__).with_name("shapes.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, parts = line.partition(":")
            found[name] = [part for text in parts.split(";") for part in _parts(text)]
    return found


FIGURES = _figures()
"""Name of an object, or ``CLASS-RARE`` of the rare kind of a class -> its parts."""
