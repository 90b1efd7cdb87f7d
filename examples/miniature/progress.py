"""Builds the miniature and shows how far it is: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from closerlook_common.console.messages import line
from examples.miniature.build import Step, build

LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal."""


def build_shown(out: Path, console: Console, *, quick: bool = False, jobs: int | None = None) -> None:
    """Build the miniature study and report what is being made, how fast, and when it is there.

    Parameters
    ----------
    out
        The folder.
    console
        Where to write.
    quick, jobs
        As `examples.miniature.build.build` takes them.
    """
    begun = time.monotonic()
    show = _Bars(console) if console.is_terminal else _Lines(console, out)
    with show:
        build(out, quick=quick, jobs=jobs, progress=show)
    if show.begun:
        console.print(line(f"built the miniature study in {out} in {time.monotonic() - begun:.0f} s"), soft_wrap=True)


class _Lines:
    """One line when the work begins, and one every so many seconds."""

    def __init__(self, console: Console, out: Path) -> None:
        self.console, self.out = console, out
        self.begun: set[str] = set()
        self.last = 0.0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: Step) -> None:
        if step.seconds <= 0 and step.done == step.total:
            return  # kept from before
        self.begun.add(step.task)
        now = time.monotonic()
        if self.last and now - self.last < LINE_EVERY:
            return
        if not self.last:
            text = f"building the miniature study in {self.out}/, once: a few minutes on two cores"
        else:
            rate = step.done / max(step.seconds, 1e-9)
            text = f"miniature: {step.task} at {rate:,.0f} images/s, {step.done:,} of {step.total:,}"
        self.last = now
        self.console.print(line(text), soft_wrap=True)


class _Bars:
    """A bar for every piece of work, with its rate."""

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>14}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.rows: dict[str, TaskID] = {}
        self.begun: set[str] = set()

    def __enter__(self) -> _Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, step: Step) -> None:
        if step.seconds <= 0 and step.done == step.total:
            return  # kept from before: nothing to watch
        self.begun.add(step.task)
        if step.task not in self.rows:
            self.rows[step.task] = self.bars.add_task(step.task, total=step.total, rate="")
        rate = f"{step.done / max(step.seconds, 1e-9):,.0f} images/s"
        self.bars.update(self.rows[step.task], completed=step.done, rate=rate)
