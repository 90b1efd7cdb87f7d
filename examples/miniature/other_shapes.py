"""Shapes outside the ten classes: four that only the web-like source knows, six that no model ever sees."""

from __future__ import annotations

from examples.miniature.outlines import (
    ACCENT,
    BODY,
    DARK,
    LIGHT,
    SECOND,
    Part,
    box,
    ellipse,
    polygon,
    ring,
    stroke,
)
from examples.miniature.shapes import CLASSES, SHAPES, Shape


def _flower(kind: int) -> list[Part]:
    petals = ((0, -0.75), (0.43, -0.43), (0.43, 0.1), (0, 0.35), (-0.43, 0.1), (-0.43, -0.43))
    return [
        *stroke(SECOND, 0.1, 0, 0.2, 0.05, 1.0),
        ellipse(SECOND, 0.25 if kind else -0.25, 0.75, 0.24, 0.1),
        *(ellipse(BODY, x * 0.9, y * 0.9 - 0.1, 0.3, 0.3) for x, y in petals),
        ellipse(ACCENT, 0, -0.28, 0.26, 0.26),
    ]


def _key(kind: int) -> list[Part]:
    teeth = (0.55, 0.8) if kind else (0.45, 0.65, 0.85)
    return [
        *ring(BODY, -0.6, 0, 0.4, 0.4, 0.18),
        box(BODY, -0.25, -0.11, 1.0, 0.11),
        *(box(BODY, x - 0.07, 0.05, x + 0.07, 0.38) for x in teeth),
    ]


def _hat(kind: int) -> list[Part]:
    crown = (
        ellipse(BODY, 0, 0.4, 0.55, 0.95, 180, 360)
        if kind
        else polygon(BODY, -0.5, -0.75, 0.5, -0.75, 0.45, 0.5, -0.45, 0.5)
    )
    return [crown, box(ACCENT, -0.5, 0.15, 0.5, 0.4), ellipse(BODY, 0, 0.45, 1.0, 0.17)]


def _kite(kind: int) -> list[Part]:
    tail = (0.0, 0.4, 0.2, 0.6, 0.0, 0.8, 0.2, 1.0) if kind else (0.0, 0.4, -0.2, 0.65, 0.1, 0.98)
    return [
        *stroke(DARK, 0.06, *tail),
        polygon(BODY, 0, -1.0, 0.6, -0.35, 0, 0.45, -0.6, -0.35),
        polygon(ACCENT, 0, -1.0, 0.6, -0.35, 0, -0.35),
        polygon(ACCENT, 0, 0.45, -0.6, -0.35, 0, -0.35),
    ]


def _guitar(kind: int) -> list[Part]:
    return [
        box(DARK, -0.08, -0.95, 0.08, 0.2),
        box(SECOND, -0.16, -1.0, 0.16, -0.8),
        ellipse(BODY, 0, 0.12, 0.38, 0.34),
        ellipse(BODY, 0, 0.58, 0.52, 0.42) if kind == 0 else box(BODY, -0.5, 0.3, 0.5, 0.95),
        ellipse(DARK, 0, 0.3, 0.15, 0.15),
        box(LIGHT, -0.2, 0.62, 0.2, 0.7),
    ]


def _chair(kind: int) -> list[Part]:
    back = (
        [box(BODY, -0.6, -0.95, -0.42, 0.2), box(BODY, -0.6, -0.95, -0.1, -0.75)]
        if kind
        else [box(BODY, -0.6, -0.95, -0.4, 0.2)]
    )
    return [
        *back,
        box(BODY, -0.6, 0.05, 0.65, 0.27),
        box(SECOND, -0.58, 0.27, -0.44, 1.0),
        box(SECOND, 0.48, 0.27, 0.62, 1.0),
        box(SECOND, -0.5, 0.58, 0.5, 0.67),
    ]


def _rocket(kind: int) -> list[Part]:
    return [
        polygon(ACCENT, -0.3, 0.2, -0.7, 0.75, -0.3, 0.65),
        polygon(ACCENT, 0.3, 0.2, 0.7, 0.75, 0.3, 0.65),
        polygon(LIGHT, -0.18, 0.65, 0.18, 0.65, 0, 1.0),
        polygon(BODY, 0, -1.0, 0.2, -0.65, 0.32, -0.2, 0.3, 0.68, -0.3, 0.68, -0.32, -0.2, -0.2, -0.65),
        ellipse(LIGHT, 0, -0.25, 0.16, 0.16),
        *([ellipse(LIGHT, 0, 0.2, 0.13, 0.13)] if kind else []),
    ]


def _duck(kind: int) -> list[Part]:
    return [
        polygon(BODY, 0.5, 0.1, 1.0, -0.2, 0.85, 0.4),
        ellipse(BODY, 0.1, 0.35, 0.75, 0.42),
        ellipse(BODY, -0.45, -0.4, 0.36, 0.34),
        box(BODY, -0.6, -0.3, -0.25, 0.3),
        polygon(ACCENT, -0.75, -0.5, -1.0, -0.32, -0.72, -0.25),
        ellipse(DARK, -0.52, -0.48, 0.07, 0.07),
        ellipse(SECOND if kind else ACCENT, 0.2, 0.3, 0.4, 0.2),
    ]


def _lamp(kind: int) -> list[Part]:
    shade = (
        polygon(BODY, -0.3, -0.95, 0.3, -0.95, 0.65, -0.1, -0.65, -0.1)
        if kind == 0
        else ellipse(BODY, 0, -0.1, 0.65, 0.8, 180, 360)
    )
    return [box(DARK, -0.06, -0.2, 0.06, 0.9), ellipse(DARK, 0, 0.88, 0.45, 0.12), shade]


def _ladder(kind: int) -> list[Part]:
    lean = 0.15 * kind
    rungs = (-0.7, -0.35, 0.0, 0.35, 0.7)
    return [
        *stroke(BODY, 0.15, -0.4 + lean, -1.0, -0.4 - lean, 1.0),
        *stroke(BODY, 0.15, 0.4 - lean, -1.0, 0.4 + lean, 1.0),
        *(box(BODY, -0.4, y - 0.06, 0.4, y + 0.06) for y in rungs),
    ]


WEB_ONLY: dict[str, Shape] = {"flower": _flower, "hat": _hat, "key": _key, "kite": _kite}
"""Objects that occur in the web-like source (and in the larger class space of 14) but are not a class."""

UNSEEN: dict[str, Shape] = {
    "chair": _chair,
    "duck": _duck,
    "guitar": _guitar,
    "ladder": _ladder,
    "lamp": _lamp,
    "rocket": _rocket,
}
"""Objects of the near out-of-distribution set; no model has seen one."""

ALL_SHAPES: dict[str, Shape] = {**SHAPES, **WEB_ONLY, **UNSEEN}

LARGER_CLASSES = (*CLASSES, *WEB_ONLY)
"""The larger class space (14 names): the ten first, so that indices agree."""
