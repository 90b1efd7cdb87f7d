"""The ten object classes, three kinds of each; the third kind is the rare one.

Every shape is a list of parts in the box from -1 to 1. Later parts lie over earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable

from examples.miniature.outlines import (
    ACCENT,
    BODY,
    DARK,
    LIGHT,
    NOTHING,
    SECOND,
    Part,
    arc,
    box,
    ellipse,
    polygon,
    ring,
    stroke,
)

Shape = Callable[[int], list[Part]]
KINDS = 3


def _apple(kind: int) -> list[Part]:
    stalk = [*stroke(DARK, 0.1, 0, -0.5, 0.12, -0.95), ellipse(ACCENT, 0.4, -0.78, 0.3, 0.13)]
    if kind == 0:
        return [*stalk, ellipse(BODY, -0.28, 0.15, 0.58, 0.75), ellipse(BODY, 0.28, 0.15, 0.58, 0.75)]
    if kind == 1:  # bitten
        return [*_apple(0), ellipse(NOTHING, 0.95, 0.0, 0.36, 0.36), ellipse(NOTHING, 0.85, 0.3, 0.25, 0.25)]
    return [  # halved, with core and seeds
        *_apple(0),
        ellipse(LIGHT, -0.24, 0.15, 0.42, 0.58),
        ellipse(LIGHT, 0.24, 0.15, 0.42, 0.58),
        ellipse(DARK, -0.14, 0.15, 0.07, 0.14),
        ellipse(DARK, 0.14, 0.15, 0.07, 0.14),
    ]


def _boat(kind: int) -> list[Part]:
    hull = polygon(BODY, -0.95, 0.35, 0.95, 0.35, 0.6, 0.85, -0.6, 0.85)
    if kind == 0:  # sailing boat
        return [
            box(DARK, -0.05, -0.95, 0.05, 0.4),
            polygon(LIGHT, 0.1, -0.9, 0.1, 0.22, 0.8, 0.22),
            polygon(ACCENT, -0.1, -0.65, -0.1, 0.22, -0.65, 0.22),
            hull,
        ]
    if kind == 1:  # tug
        return [
            box(ACCENT, -0.25, -0.75, 0.05, -0.15),
            box(DARK, -0.25, -0.75, 0.05, -0.58),
            box(LIGHT, -0.5, -0.2, 0.5, 0.4),
            box(DARK, -0.35, -0.08, -0.1, 0.14),
            box(DARK, 0.1, -0.08, 0.35, 0.14),
            hull,
        ]
    return [  # rowing boat
        *stroke(DARK, 0.09, -0.2, 0.3, -0.8, -0.55),
        *stroke(DARK, 0.09, 0.2, 0.3, 0.8, -0.55),
        ellipse(LIGHT, -0.8, -0.58, 0.16, 0.11),
        ellipse(LIGHT, 0.8, -0.58, 0.16, 0.11),
        ellipse(BODY, 0, 0.2, 1.0, 0.6, 0, 180),
        ellipse(ACCENT, 0, 0.2, 1.0, 0.12),
    ]


def _bottle(kind: int) -> list[Part]:
    if kind == 0:
        return [
            polygon(BODY, -0.12, -0.55, 0.12, -0.55, 0.34, -0.1, 0.34, 0.95, -0.34, 0.95, -0.34, -0.1),
            box(BODY, -0.12, -0.8, 0.12, -0.5),
            box(DARK, -0.15, -1.0, 0.15, -0.75),
            box(LIGHT, -0.34, 0.2, 0.34, 0.6),
        ]
    if kind == 1:  # round flask
        return [
            ellipse(BODY, 0, 0.35, 0.62, 0.6),
            box(BODY, -0.15, -0.7, 0.15, 0),
            box(DARK, -0.2, -0.95, 0.2, -0.68),
            ellipse(LIGHT, 0, 0.35, 0.3, 0.24),
        ]
    return [  # waisted, with a round stopper
        polygon(BODY, -0.1, -0.6, 0.1, -0.6, 0.45, -0.2, 0.16, 0.2, 0.5, 0.95, -0.5, 0.95, -0.16, 0.2, -0.45, -0.2),
        ellipse(ACCENT, 0, -0.78, 0.2, 0.2),
    ]


def _wheel(x: float, y: float = 0.5, r: float = 0.27) -> list[Part]:
    return [ellipse(DARK, x, y, r, r), ellipse(LIGHT, x, y, r * 0.45, r * 0.45)]


def _car(kind: int) -> list[Part]:
    if kind == 0:  # saloon
        return [
            polygon(BODY, -0.6, 0.05, -0.35, -0.45, 0.3, -0.45, 0.6, 0.05),
            polygon(LIGHT, -0.45, 0.02, -0.28, -0.33, -0.03, -0.33, -0.03, 0.02),
            polygon(LIGHT, 0.06, 0.02, 0.06, -0.33, 0.24, -0.33, 0.45, 0.02),
            box(BODY, -1.0, 0.0, 1.0, 0.5),
            box(ACCENT, 0.86, 0.08, 1.0, 0.24),
            *_wheel(-0.55),
            *_wheel(0.55),
        ]
    if kind == 1:  # van
        return [
            polygon(BODY, -1.0, -0.6, 0.6, -0.6, 0.98, 0.0, 0.98, 0.5, -1.0, 0.5),
            polygon(LIGHT, 0.2, -0.45, 0.52, -0.45, 0.8, -0.02, 0.2, -0.02),
            box(LIGHT, -0.8, -0.45, -0.35, -0.05),
            box(LIGHT, -0.25, -0.45, 0.1, -0.05),
            *_wheel(-0.55),
            *_wheel(0.55),
        ]
    return [  # racing car
        polygon(BODY, -1.0, 0.1, -0.2, 0.0, 0.1, -0.2, 0.3, 0.1, 1.0, 0.3, 1.0, 0.5, -1.0, 0.5),
        ellipse(LIGHT, 0.02, -0.1, 0.16, 0.16),
        box(ACCENT, -1.0, -0.35, -0.7, -0.22),
        box(DARK, -0.9, -0.25, -0.8, 0.2),
        *_wheel(-0.65, 0.42, 0.33),
        *_wheel(0.68, 0.42, 0.33),
    ]


def _cup(kind: int) -> list[Part]:
    if kind == 0:  # mug
        return [
            *ring(BODY, 0.42, 0.1, 0.42, 0.42, 0.15),
            box(BODY, -0.65, -0.6, 0.42, 0.75),
            ellipse(BODY, -0.115, 0.75, 0.535, 0.12),
            ellipse(LIGHT, -0.115, -0.6, 0.535, 0.15),
            ellipse(DARK, -0.115, -0.57, 0.42, 0.09),
        ]
    if kind == 1:  # teacup on a saucer
        return [
            *ring(BODY, 0.62, -0.05, 0.3, 0.28, 0.11),
            ellipse(ACCENT, 0, 0.72, 0.95, 0.16),
            ellipse(BODY, 0, -0.35, 0.68, 1.05, 0, 180),
            ellipse(LIGHT, 0, -0.35, 0.68, 0.14),
            ellipse(DARK, 0, -0.33, 0.55, 0.08),
        ]
    return [  # tumbler with a straw
        *stroke(ACCENT, 0.1, 0.05, -0.5, 0.35, -1.0),
        polygon(BODY, -0.55, -0.5, 0.55, -0.5, 0.38, 0.95, -0.38, 0.95),
        box(LIGHT, -0.62, -0.6, 0.62, -0.42),
    ]


def _fish(kind: int) -> list[Part]:
    if kind == 0:
        return [
            polygon(ACCENT, 0.45, 0, 1.0, -0.45, 0.85, 0, 1.0, 0.45),
            polygon(ACCENT, -0.3, -0.35, 0.1, -0.75, 0.3, -0.3),
            ellipse(BODY, -0.2, 0, 0.75, 0.46),
            polygon(ACCENT, -0.15, 0.1, 0.2, 0.15, 0.1, 0.4),
            ellipse(LIGHT, -0.62, -0.1, 0.14, 0.14),
            ellipse(DARK, -0.64, -0.1, 0.07, 0.07),
        ]
    if kind == 1:  # long
        return [
            polygon(ACCENT, 0.6, 0, 1.0, -0.32, 0.92, 0, 1.0, 0.32),
            polygon(ACCENT, 0.1, -0.2, 0.5, -0.48, 0.55, -0.1),
            polygon(ACCENT, 0.1, 0.2, 0.5, 0.48, 0.55, 0.1),
            ellipse(BODY, -0.12, 0, 0.86, 0.27),
            ellipse(LIGHT, -0.7, -0.06, 0.1, 0.1),
            ellipse(DARK, -0.72, -0.06, 0.05, 0.05),
        ]
    spikes = []
    for dx, dy in ((0, -1), (0.7, -0.7), (-0.7, -0.7), (0.7, 0.7), (-0.7, 0.7), (0, 1), (-1, 0)):
        spikes.append(
            polygon(
                ACCENT,
                -0.1 + dx * 0.95,
                dy * 0.95,
                -0.1 + dx * 0.5 - dy * 0.16,
                dy * 0.5 + dx * 0.16,
                -0.1 + dx * 0.5 + dy * 0.16,
                dy * 0.5 - dx * 0.16,
            )
        )
    return [  # puffer
        *spikes,
        polygon(ACCENT, 0.45, 0, 0.95, -0.3, 0.95, 0.3),
        ellipse(BODY, -0.1, 0, 0.66, 0.66),
        ellipse(LIGHT, -0.42, -0.18, 0.18, 0.18),
        ellipse(DARK, -0.46, -0.18, 0.09, 0.09),
    ]


def _house(kind: int) -> list[Part]:
    if kind == 0:
        return [
            box(DARK, 0.35, -0.85, 0.55, -0.3),
            box(BODY, -0.7, -0.1, 0.7, 0.9),
            polygon(ACCENT, -0.95, -0.05, 0, -0.9, 0.95, -0.05),
            box(DARK, -0.15, 0.35, 0.18, 0.9),
            box(LIGHT, -0.55, 0.15, -0.25, 0.45),
            box(LIGHT, 0.3, 0.15, 0.58, 0.45),
        ]
    if kind == 1:  # tower house
        return [
            box(BODY, -0.42, -0.4, 0.42, 0.95),
            polygon(ACCENT, -0.6, -0.35, 0, -1.0, 0.6, -0.35),
            box(LIGHT, -0.25, -0.15, -0.05, 0.1),
            box(LIGHT, 0.08, -0.15, 0.28, 0.1),
            box(LIGHT, -0.25, 0.25, -0.05, 0.48),
            box(DARK, 0.02, 0.5, 0.26, 0.95),
        ]
    return [  # flat roof, long
        box(BODY, -0.95, -0.2, 0.95, 0.8),
        box(ACCENT, -1.0, -0.35, 1.0, -0.15),
        box(LIGHT, -0.8, 0.0, -0.1, 0.4),
        box(LIGHT, 0.05, 0.0, 0.4, 0.4),
        box(DARK, 0.55, 0.1, 0.82, 0.8),
    ]


def _mushroom(kind: int) -> list[Part]:
    if kind == 0:
        return [
            polygon(SECOND, -0.2, 0, 0.2, 0, 0.3, 0.9, -0.3, 0.9),
            ellipse(BODY, 0, 0.1, 0.9, 0.95, 180, 360),
            ellipse(LIGHT, 0, 0.1, 0.9, 0.1),
        ]
    if kind == 1:  # pointed cap
        return [
            box(SECOND, -0.14, 0, 0.14, 0.95),
            polygon(BODY, 0, -0.98, 0.35, -0.55, 0.65, 0.2, -0.65, 0.2, -0.35, -0.55),
            ellipse(BODY, 0, 0.2, 0.65, 0.12),
        ]
    return [  # funnel
        polygon(SECOND, -0.3, -0.15, 0.3, -0.15, 0.16, 0.9, -0.16, 0.9),
        ellipse(BODY, 0, -0.4, 0.95, 0.6, 0, 180),
        ellipse(ACCENT, 0, -0.4, 0.95, 0.2),
    ]


def _tree(kind: int) -> list[Part]:
    if kind == 0:
        return [
            polygon(SECOND, -0.13, 0.1, 0.13, 0.1, 0.2, 0.97, -0.2, 0.97),
            ellipse(BODY, -0.42, 0.0, 0.46, 0.44),
            ellipse(BODY, 0.42, 0.0, 0.46, 0.44),
            ellipse(BODY, 0, -0.42, 0.58, 0.55),
        ]
    if kind == 1:  # fir
        return [
            box(SECOND, -0.12, 0.5, 0.12, 0.97),
            polygon(BODY, 0, -0.3, 0.75, 0.65, -0.75, 0.65),
            polygon(BODY, 0, -0.65, 0.6, 0.2, -0.6, 0.2),
            polygon(BODY, 0, -1.0, 0.42, -0.3, -0.42, -0.3),
        ]
    fronds = []
    for dx, dy in ((-0.9, -0.15), (-0.7, -0.75), (0.75, -0.85), (0.98, -0.3), (-0.6, 0.2), (0.75, 0.1)):
        fronds += stroke(BODY, 0.2, 0.1, -0.5, 0.1 + (dx - 0.1) * 0.55, -0.55 + (dy + 0.5) * 0.3, dx, dy)
    return [*stroke(SECOND, 0.2, -0.15, 0.97, -0.1, 0.3, 0.1, -0.5), *fronds]  # palm


def _umbrella(kind: int) -> list[Part]:
    canopy = [
        ellipse(BODY, 0, 0.05, 0.95, 0.9, 180, 360),
        *(ellipse(NOTHING, x, 0.08, 0.24, 0.12) for x in (-0.71, -0.24, 0.24, 0.71)),
    ]
    if kind == 0:
        handle = arc(DARK, 0.1, 0.16, 0.75, 0.16, 0, 180)
        return [*canopy, box(DARK, -0.05, -0.02, 0.05, 0.75), *handle, box(DARK, -0.04, -1.0, 0.04, -0.8)]
    if kind == 1:  # parasol
        return [
            box(SECOND, -0.06, -0.3, 0.06, 1.0),
            polygon(BODY, -1.0, -0.15, 0, -0.85, 1.0, -0.15),
            polygon(ACCENT, -1.0, -0.17, 1.0, -0.17, 0.93, 0.0, -0.93, 0.0),
            ellipse(ACCENT, 0, -0.88, 0.09, 0.09),
        ]
    return [  # furled
        polygon(BODY, -0.24, -0.35, 0.24, -0.35, 0.05, 0.85, -0.05, 0.85),
        polygon(ACCENT, -0.2, -0.1, 0.2, -0.1, 0.17, 0.05, -0.17, 0.05),
        box(DARK, -0.04, 0.8, 0.04, 1.0),
        box(DARK, -0.05, -0.75, 0.05, -0.35),
        *arc(DARK, 0.1, 0.17, -0.78, 0.17, 180, 360),
    ]


SHAPES: dict[str, Shape] = {
    "apple": _apple,
    "boat": _boat,
    "bottle": _bottle,
    "car": _car,
    "cup": _cup,
    "fish": _fish,
    "house": _house,
    "mushroom": _mushroom,
    "tree": _tree,
    "umbrella": _umbrella,
}
"""Class name -> function of the kind (0, 1, or 2 for the rare one)."""

CLASSES = tuple(SHAPES)
"""The class space ``miniature-10``, in index order (sorted by name)."""

CLASS_SPACE = "miniature-10"

KIND_NAMES: dict[str, tuple[str, str, str]] = {
    "apple": ("whole", "bitten", "halved"),
    "boat": ("sailing", "tug", "rowing"),
    "bottle": ("wine", "round", "waisted"),
    "car": ("saloon", "van", "racing"),
    "cup": ("mug", "tea", "tumbler"),
    "fish": ("plain", "long", "puffer"),
    "house": ("gabled", "tower", "flat-roofed"),
    "mushroom": ("domed", "pointed", "funnel"),
    "tree": ("leafy", "fir", "palm"),
    "umbrella": ("open", "parasol", "furled"),
}
