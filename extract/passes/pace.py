"""How fast a run is and how long it will take, from the jobs that it has and the rows that went through."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

WINDOW_SECONDS = 60.0
"""The rate is that of the last minute in which rows went through."""

Place = tuple[str, str]
"""A model and a dataset."""


class Pace:
    """Counts rows by job; what was sealed before, failed or began again is neither work done nor work left.

    The rate is of the time since the first pass began: loading the first models is no part of it. The time left is what
    is left at the rate since then, so that loading between passes is part of it as often as it was so far.

    Parameters
    ----------
    rows
        Images of each job.
    """

    def __init__(self, rows: Mapping[Place, int]) -> None:
        self._rows = dict(rows)
        self._done: dict[Place, int] = {}
        self._ended: set[Place] = set()
        self._recent: deque[tuple[float, int]] = deque()
        self._begun: float | None = None
        self._passed = 0

    def begin(self, models: str, dataset: str, now: float) -> None:
        """Begin a pass; of one that began before, what went through is to be done again."""
        for model in models.split(", "):
            self._done[model, dataset] = 0
        if self._begun is None:
            self._begun = now
        if not self._recent:
            self._recent.append((now, self._passed))

    def advance(self, models: str, dataset: str, rows: int, now: float) -> None:
        """Take in rows that went through, images times models."""
        names = models.split(", ")
        for model in names:
            self._done[model, dataset] = self._done.get((model, dataset), 0) + rows // len(names)
        self._begun = now if self._begun is None else self._begun
        self._passed += rows
        self._recent.append((now, self._passed))
        while len(self._recent) > 2 and now - self._recent[1][0] >= WINDOW_SECONDS:
            self._recent.popleft()

    def end(self, model: str, dataset: str) -> None:
        """End a job, done or failed: nothing of it is left. A model that failed as a whole has no dataset."""
        self._ended |= {place for place in self._rows if place[0] == model and dataset in ("", place[1])}

    @property
    def total(self) -> int:
        """Images times models, without what ended before it was worked at."""
        return sum(n for place, n in self._rows.items() if place not in self._ended or self._done.get(place))

    @property
    def done(self) -> int:
        """Of the total, what went through; a job that ended counts in full."""
        return self.total - self.left

    @property
    def left(self) -> int:
        """Images times models that are still to go through."""
        return sum(max(0, n - self._done.get(place, 0)) for place, n in self._rows.items() if place not in self._ended)

    def rate(self) -> float | None:
        """Return images times models a second, lately; None while nothing went through."""
        if len(self._recent) < 2:
            return None
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return (after - before) / (last - first) if last > first else None

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes at the rate of the whole run so far; None while nothing went through."""
        if self._begun is None or not self._passed or now <= self._begun:
            return None
        return self.left * (now - self._begun) / self._passed
