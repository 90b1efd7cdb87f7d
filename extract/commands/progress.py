"""Events in, what a person sees out: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from extract.passes.clock import duration
from extract.passes.events import Event

LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal."""


class _Rate(ProgressColumn):
    """Images times models a second, which is what the bar counts; lines about a pass tell of its images alone."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} forwards/s", style="progress.data.speed")


@dataclass
class Tally:
    """What became of the jobs."""

    done: list[tuple[str, str]] = field(default_factory=list)
    sealed: int = 0
    """Jobs found sealed only when the model's weights were read and hashed."""
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def print_failures(failed: Sequence[tuple[str, str, str]], console: Console) -> None:
    """Print (model, dataset, reason) of what failed: one line for all datasets that have one reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for model, dataset, reason in failed:
        grouped.setdefault((model, reason.removeprefix(f"{model}: ")), []).append(dataset)
    for (model, reason), datasets in grouped.items():
        named = [name for name in datasets if name]
        # A dataset that has failed by itself is named; a model may have failed on every one.
        few = len(named) == 1 or (not model and len(named) <= 3)
        shown = ", ".join(named) if few else f"{len(named)} datasets" if named else ""
        where = " on ".join(part for part in (model, shown) if part)
        console.print(f"[red]failed[/] {escape(where)}: {escape(reason)}", highlight=False, soft_wrap=True)


class Reporter:
    """Shows a run. Use as a context manager; call it with every event.

    Parameters
    ----------
    total_rows
        Images times models that are to go through.
    n_models
        Models that have something to do.
    console
        Where to write; standard error by default, so that output can be piped.
    """

    def __init__(self, total_rows: int, n_models: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.tally = Tally()
        self._total, self._rows, self._n_models = total_rows, 0, n_models
        self._models: set[str] = set()
        self._begun = self._last_line = time.monotonic()
        self._progress = Progress(
            # What is being done gives way on a narrow terminal; the numbers do not.
            TextColumn("[bold]{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            _Rate(table_column=Column(no_wrap=True, justify="right")),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=max(total_rows, 1))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        if event.kind == "rows":
            self._advance(event)
        elif event.kind == "loading":
            self._models.add(event.model)
            self._describe(event.model if not event.text else f"{event.model} ({event.text})")
        elif event.kind == "pass":
            self._describe(f"{event.dataset}: {_few(event.model)}")
        elif event.kind == "done" and event.text:
            self.tally.sealed += 1
        elif event.kind == "done":
            self.tally.done.append((event.model, event.dataset))
        elif event.kind == "failed":
            if (event.model, event.dataset, event.text) in self.tally.failed:
                return  # every pass over a dataset finds the same unreadable images
            is_new = all((event.model, event.text) != (model, text) for model, _, text in self.tally.failed)
            self.tally.failed.append((event.model, event.dataset, event.text))
            if is_new:  # weights that cannot be loaded fail on every dataset: once is enough
                print_failures([self.tally.failed[-1]], self.console)
        elif event.kind == "rates":
            text = f"{event.dataset}: {_few(event.model)}: {event.text}"
            self.console.print(escape(text), highlight=False, soft_wrap=True, style="dim")
        else:
            self.tally.notes.append(event.text)
            self.console.print(escape(event.text), highlight=False, soft_wrap=True)

    def _describe(self, what: str) -> None:
        number = min(len(self._models), self._n_models)
        self._progress.update(self._task, description=escape(f"model {number} of {self._n_models}  {what}"))

    def _advance(self, event: Event) -> None:
        # Work that was begun again, after a process was lost, is counted twice.
        self._rows = min(self._rows + event.rows, self._total)
        self._progress.update(self._task, completed=self._rows)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            rate = self._rows / (now - self._begun)
            left = (self._total - self._rows) / max(rate, 1e-9)
            self.console.print(
                f"model {len(self._models)} of {self._n_models}, {event.dataset}: {self._rows:,} of {self._total:,}"
                f" images x models, {rate:,.0f} a second, {duration(left)} left",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def _few(models: str) -> str:
    names = models.split(", ")
    return names[0] if len(names) == 1 else f"{len(names)} models ({names[0]} ...)"
