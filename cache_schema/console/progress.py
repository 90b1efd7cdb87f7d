"""A progress bar with rate and time left, on stderr; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Bar:
    """Shows how far a loop is.

    Parameters
    ----------
    what
        What is being done.
    unit
        What is counted.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
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
        task = self._progress.add_task(self._what, total=len(items), unit=self._unit, rate=0.0)
        for item in items:
            yield item
            self._progress.update(
                task,
                advance=1,
                rate=self._progress.tasks[task].finished_speed or self._progress.tasks[task].speed or 0.0,
            )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
