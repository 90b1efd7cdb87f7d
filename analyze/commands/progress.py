"""A progress line for work that goes model by model: done, rate, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from closerlook_common.console import waiting
from closerlook_common.console.messages import line
from closerlook_common.console.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal to draw a bar on."""


@contextmanager
def model_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar; yields the function to call with (model, done, all)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    notice, begun = waiting.WaitNotice(), waiting.clock.now()
    last = begun
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("models", total=None)

        def advance(model: str, done: int, total: int) -> None:
            nonlocal last
            bar.update(task, description=printable(model)[:40], completed=done, total=total)
            now = waiting.clock.now()
            if not console.is_terminal and done and now - last >= LINE_EVERY:
                last = now
                left = (now - begun) / done * (total - done)
                console.print(line(f"{done} of {total} done, about {left:.0f} s left"), soft_wrap=True)

        if not console.is_terminal:
            notice.begin(f"computing; a line every {LINE_EVERY:.0f} s")
        try:
            yield advance
        finally:
            notice.end()
