"""What a table is made of: its numbers with their marks, and its columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes
    ----------
    value, low, high
        The number and its interval; None where there is none.
    reason
        Why there is no value.
    rank
        1 for the best of its column and those that cannot be distinguished from it (by paired tests or intervals, 5 %,
        Tukey), 2 for the next best, 0 otherwise.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    rank: int = 0


@dataclass(frozen=True)
class Column:
    """A column's key, the name it is shown by, and how its numbers are meant.

    Attributes
    ----------
    key
        Values of the columns that were asked for, followed by those that had to be distinguished.
    name, title
        Plain name (terminal, CSV) and name in print (LaTeX, Markdown, HTML).
    metric, direction
        Metric (empty where the columns mix several) and ``higher``, ``lower`` or ``none``.
    percent
        Whether the numbers are shown times 100.
    variant
        Whether it is one of several variants (calibrated, another prompt set ...) of a number.
    over, under
        The title in two lines where two columns were asked for: the first, which neighbours share, and the rest.
    """

    key: tuple[str, ...]
    name: str
    title: str
    metric: str
    direction: str
    percent: bool = False
    variant: bool = False
    over: str = ""
    under: str = ""

    @property
    def arrow(self) -> str:
        """Return the sign of the direction."""
        return {"higher": "↑", "lower": "↓"}.get(self.direction, "")
