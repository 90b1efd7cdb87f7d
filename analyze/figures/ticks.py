"""Ticks at chosen numbers, as many as have room for their labels, measured in the font that draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axis import XAxis
from matplotlib.textpath import text_to_path
from matplotlib.ticker import AutoLocator, FuncFormatter, Locator, MaxNLocator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

NICE_PROPORTIONS = (
    *(0.001, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(0.95, 0.98, 0.99, 0.999),
)
NICE_STEPS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
MOST_STEPS = 5
"""Steps of a linear axis at most; a narrow panel takes fewer."""
GAP = 0.4
"""Blank between two labels, as a share of the font size."""


class MeasuredTicks(Locator):
    """Ticks at those of some numbers whose labels do not touch, whatever the size of the axes.

    Parameters
    ----------
    candidates
        Gives the numbers that may be ticked between two limits, in increasing order.
    first
        Of these, the one nearest to this number is always ticked; the middle one where it is None.
    """

    def __init__(self, candidates: Callable[[float, float], Sequence[float]], first: float | None = None) -> None:
        self.candidates, self.first = candidates, first

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis as it is laid out now."""
        low, high = sorted(map(float, self.axis.get_view_interval()))  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks between two limits."""
        inside = list(self.candidates(vmin, vmax))
        if len(inside) < 2:
            return inside
        axis: Any = self.axis
        ends, places = (_scaled(axis, values) for values in ([vmin, vmax], inside))
        along = (places - ends[0]) / (ends[1] - ends[0]) * _length(axis)
        sizes = [_label_size(axis, text_of(value)) for value in inside]
        first = len(inside) // 2 if self.first is None else int(np.argmin(np.abs(np.array(inside) - self.first)))
        kept = [first]
        for order in (range(first + 1, len(inside)), range(first - 1, -1, -1)):
            last = first
            for index in order:
                if abs(along[index] - along[last]) >= (sizes[index] + sizes[last]) / 2:
                    kept.append(index)
                    last = index
        return [inside[index] for index in sorted(kept)]


class MeasuredSteps(Locator):
    """Regular ticks of a linear axis, as many as have room for their labels."""

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis as it is laid out now."""
        low, high = sorted(map(float, self.axis.get_view_interval()))  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks between two limits."""
        regular: list[float] = []
        for steps in range(MOST_STEPS, 0, -1):
            locator = MaxNLocator(nbins=steps, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
            inside = [float(value) for value in locator.tick_values(vmin, vmax) if vmin <= value <= vmax]
            if len(inside) > 1 and self._fits(inside, vmax - vmin):
                return inside
            if len(inside) > 1 or not regular:
                regular = inside
        ends = [regular[0], regular[-1]] if len(regular) > 1 else regular
        return ends if len(ends) < 2 or self._fits(ends, vmax - vmin) else regular[len(regular) // 2 :][:1]

    def _fits(self, ticks: Sequence[float], span: float) -> bool:
        axis: Any = self.axis
        along = _scaled(axis, ticks) / span * _length(axis)
        sizes = [_label_size(axis, text) for text in axis.get_major_formatter().format_ticks(ticks)]
        return all(b - a >= (p + q) / 2 for (a, b), (p, q) in zip(pairwise(along), pairwise(sizes), strict=True))


def measure_ticks(ax: Axes) -> None:
    """Give both axes measured ticks where they still have matplotlib's own."""
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.set_major_locator(MeasuredSteps())


def tick_at(ax: Axes, axis: str, locator: MeasuredTicks) -> None:
    """Tick an axis (``x`` or ``y``) where a locator says, with plain numbers."""
    chosen: Axis = getattr(ax, f"{axis}axis")
    chosen.set_major_locator(locator)
    chosen.set_major_formatter(FuncFormatter(lambda value, _place: text_of(value)))


def round_proportions(low: float, high: float) -> list[float]:
    """Return round proportions between two limits: those of probability paper, or a regular step on a short axis."""
    inside = [p for p in NICE_PROPORTIONS if low <= p <= high]
    if len(inside) >= 3:
        return inside
    step = next((s for s in NICE_STEPS if (high - low) / s >= 3), NICE_STEPS[-1])
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(number * step, 6) for number in range(first, last + 1) if 0 < number * step < 1]


def text_of(value: float) -> str:
    """Return a tick's label."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _scaled(axis: Any, values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(axis.get_transform().transform(np.asarray(values, dtype=np.float64)), dtype=np.float64)


def _length(axis: Any) -> float:
    """Return the length of an axis in typographic points."""
    box = axis.axes.get_window_extent()
    return float((box.width if isinstance(axis, XAxis) else box.height) / axis.axes.figure.dpi * 72)


def _label_size(axis: Any, text: str) -> float:
    """Return the room along the axis that a label needs, in typographic points."""
    font = axis.get_major_ticks(1)[0].label1.get_fontproperties()
    width, height, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width if isinstance(axis, XAxis) else height) + GAP * float(font.get_size_in_points())
