"""Events in, what a person sees out: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
)
from rich.table import Column

from closerlook_common.console import waiting
from closerlook_common.console.messages import line, problem
from closerlook_common.console.terminal import escaped
from extract.passes.clock import duration
from extract.passes.events import Event
from extract.passes.pace import Pace, Place

LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal."""


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
        console.print(problem("failed", "red", f"{where}: {reason}"), soft_wrap=True)


class Reporter:
    """Shows a run. Use as a context manager; call it with every event.

    Parameters
    ----------
    rows
        Images of each job, by model and dataset.
    n_models
        Models that have something to do.
    console
        Where to write; standard error by default, so that output can be piped.
    """

    def __init__(self, rows: Mapping[Place, int], n_models: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.tally = Tally()
        self._pace, self._n_models = Pace(rows), n_models
        self._models: set[str] = set()
        self._last_line = waiting.clock.now()
        self._progress = Progress(
            # What is being done gives way on a narrow terminal; the numbers do not.
            TextColumn("[bold]{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, justify="right")),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=max(self._pace.total, 1), rate="")
        self._patience = waiting.WaitNotice(self._print_line)
        self._waited_for = ("", "", "")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.end()
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        self._say_waits(event)
        if event.kind == "rows":
            self._advance(event)
        elif event.kind == "loading":
            self._models.add(event.model)
            self._describe(event.model if not event.text else f"{event.model} ({event.text})")
        elif event.kind == "pass":
            self._pace.begin(event.model, event.dataset, time.monotonic())
            self._describe(f"{event.dataset}: {_few(event.model)}")
        elif event.kind == "done" and event.text:
            self._pace.end(event.model, event.dataset)
            self.tally.sealed += 1
        elif event.kind == "done":
            self._pace.end(event.model, event.dataset)
            self.tally.done.append((event.model, event.dataset))
        elif event.kind == "failed":
            if (event.model, event.dataset, event.text) in self.tally.failed:
                return  # every pass over a dataset finds the same unreadable images
            self._pace.end(event.model, event.dataset)
            is_new = all((event.model, event.text) != (model, text) for model, _, text in self.tally.failed)
            self.tally.failed.append((event.model, event.dataset, event.text))
            if is_new:  # weights that cannot be loaded fail on every dataset: once is enough
                print_failures([self.tally.failed[-1]], self.console)
        elif event.kind == "rates":
            text = f"{event.dataset}: {_few(event.model)}: {event.text}"
            self._print_line(text)
        else:
            self.tally.notes.append(event.text)
            self.console.print(line(event.text), soft_wrap=True)

    def _say_waits(self, event: Event) -> None:
        """Where no bar is drawn, say what takes long before images go through: a model, a text head, a first batch."""
        if self.console.is_terminal:
            return
        if event.kind not in ("loading", "pass"):
            self._patience.end()
            self._waited_for = ("", "", "")
            return
        what = (event.kind, event.model, event.text.partition(":")[0])
        names = _few(event.model)
        text = f"loading {names}" if event.kind == "loading" else f"{event.dataset}: first images through {names}"
        text = f"{names}: {event.text}" if event.kind == "loading" and event.text else text
        if what != self._waited_for:
            self._waited_for = what
            self._patience.begin(text)
        elif waiting.clock.now() - self._last_line >= LINE_EVERY:
            self._last_line = waiting.clock.now()
            self._print_line(text)

    def _print_line(self, text: str) -> None:
        self.console.print(line(text, "dim"), soft_wrap=True)

    def _describe(self, what: str) -> None:
        number = min(len(self._models), self._n_models)
        self._progress.update(self._task, description=escaped(f"model {number} of {self._n_models}  {what}"))

    def _advance(self, event: Event) -> None:
        now = time.monotonic()
        self._pace.advance(event.model, event.dataset, event.rows, now)
        rate, left = self._pace.rate(), self._pace.seconds_left(now)
        speed = [] if rate is None else [f"{rate:,.0f} a second"]
        speed += [] if left is None else [f"{duration(left)} left"]
        self._progress.update(
            self._task, completed=self._pace.done, total=max(self._pace.total, 1), rate=", ".join(speed)
        )
        if not self.console.is_terminal and waiting.clock.now() - self._last_line >= LINE_EVERY:
            self._last_line = waiting.clock.now()
            done = ", ".join([f"{self._pace.done:,} of {self._pace.total:,} images x models", *speed])
            text = f"model {len(self._models)} of {self._n_models}, {event.dataset}: {done}"
            self.console.print(line(text), soft_wrap=True)


def _few(models: str) -> str:
    names = models.split(", ")
    return names[0] if len(names) == 1 else f"{len(names)} models ({names[0]} ...)"
