"""Polygons that objects are made of: parts in a unit box, x to the right, y downwards."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

NOTHING, BODY, SECOND, ACCENT, DARK, LIGHT = range(6)
"""What a part is made of; ``NOTHING`` cuts a hole, ``BODY`` wears the class's material and pattern."""


class Part(NamedTuple):
    """One polygon and what it is made of."""

    role: int
    points: Points


def polygon(role: int, *coordinates: float) -> Part:
    """Return a polygon from ``x0, y0, x1, y1, ...``."""
    return Part(role, np.asarray(coordinates, dtype=np.float64).reshape(-1, 2))


def box(role: int, left: float, top: float, right: float, bottom: float) -> Part:
    """Return an upright rectangle."""
    return polygon(role, left, top, right, top, right, bottom, left, bottom)


def ellipse(role: int, x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0) -> Part:
    """Return an ellipse, or the segment of it between two angles (degrees, clockwise from the right)."""
    steps = max(8, int(abs(stop - start) / 12))
    angles = np.radians(np.linspace(start, stop, steps, endpoint=stop - start < 360.0))
    return Part(role, np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1))


def stroke(role: int, width: float, *coordinates: float) -> list[Part]:
    """Return a thick line through ``x0, y0, x1, y1, ...``: a rectangle per segment, a disc per joint."""
    points = np.asarray(coordinates, dtype=np.float64).reshape(-1, 2)
    parts = []
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        dx, dy = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
        parts.append(polygon(role, x0 + dx, y0 + dy, x1 + dx, y1 + dy, x1 - dx, y1 - dy, x0 - dx, y0 - dy))
    parts += [ellipse(role, x, y, width / 2, width / 2) for x, y in points[1:-1]]
    return parts


def ring(role: int, x: float, y: float, rx: float, ry: float, width: float) -> list[Part]:
    """Return an ellipse with a hole."""
    return [ellipse(role, x, y, rx, ry), ellipse(NOTHING, x, y, rx - width, ry - width)]


def arc(role: int, width: float, x: float, y: float, r: float, start: float, stop: float) -> list[Part]:
    """Return a thick arc of a circle between two angles (degrees, clockwise from the right)."""
    angles = np.radians(np.linspace(start, stop, 7))
    points = np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], axis=1)
    return stroke(role, width, *points.ravel().tolist())
