"""A progress bar with rate and time left, on stderr; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Bar:
    """Shows how far a loop is.

    Parameters
    ----------
    what
        What is being done.
    unit
        What is counted.
    total
        How many there are, for :meth:`advance`; :meth:`track` counts by itself.
    """

    def __init__(self, what: str, unit: str, total: int | None = None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}, {task.fields[rate]:.1f}/s,"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
            transient=True,
        )

    def track(self, items: Sequence[T]) -> Iterator[T]:
        """Yield the items and count them."""
        self._total, self._task = len(items), None
        for item in items:
            yield item
            self.advance()

    def advance(self) -> None:
        """Count one."""
        if self._task is None:
            self._task = self._progress.add_task(self._what, total=self._total, unit=self._unit, rate=0.0)
        task = self._progress.tasks[self._task]
        self._progress.update(self._task, advance=1, rate=task.finished_speed or task.speed or 0.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
