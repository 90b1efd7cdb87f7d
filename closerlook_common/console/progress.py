"""Progress of a loop on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from closerlook_common.console import waiting
from closerlook_common.console.messages import sentence

T = TypeVar("T")

LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal to draw a bar on."""


class Bar:
    """Show the progress of a loop.

    Parameters
    ----------
    what
        Description of the work.
    unit
        Name of the items.
    total
        Number of items.
    """

    def __init__(self, what: str, unit: str, total: int | None = None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._task: TaskID | None = None
        self._notice = waiting.WaitNotice()
        self._is_drawn = sys.stderr.isatty()
        self._begun = self._last_line = waiting.clock.now()
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}, {task.fields[rate]:.1f}/s,"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not self._is_drawn,
            transient=True,
        )

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items and count them."""
        for item in items:
            yield item
            self.advance()

    def advance(self) -> None:
        """Count one."""
        if self._task is None:
            self._task = self._progress.add_task(self._what, total=self._total, unit=self._unit, rate=0.0)
        task = self._progress.tasks[self._task]
        self._progress.update(self._task, advance=1, rate=task.finished_speed or task.speed or 0.0)
        self._done += 1
        now = waiting.clock.now()
        if not self._is_drawn and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            of, left = "", ""
            if self._total:
                seconds = (now - self._begun) / self._done * (self._total - self._done)
                of, left = f" of {self._total:,}", f", about {seconds:,.0f} s left"
            text = f"{self._what}: {self._done:,}{of} {self._unit} done{left}"
            print(sentence(text), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._progress.start()
        if not self._is_drawn and waiting.is_printing():
            of = f" ({self._total:,})" if self._total else ""
            self._notice.begin(f"{self._what} {self._unit}{of}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notice.end()
        self._progress.stop()
