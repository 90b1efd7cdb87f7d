"""What the commands that write rows into a result table have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from rich.console import Console

    from analyze.evaluate.into_table import Written
    from analyze.results import Merged


def check_table(path: Path) -> None:
    """Refuse an output that is there and is not a result table, before anything is computed."""
    from analyze.results import read_results

    if path.exists():
        read_results(path)


def print_dropped(console: Console, merged: Merged, command: str) -> None:
    """Say how many rows of an earlier run are gone because this run did not ask for them."""
    from closerlook_common.console.messages import problem

    if merged.dropped:
        rows = f"{counted(merged.dropped, 'row')}"
        text = f"{rows} of an earlier 'analyze {command}' replaced: this run has no such numbers."
        console.print(problem("note", "yellow", text), soft_wrap=True)


def print_added(console: Console, written: Written, output: Path, command: str, of: str = "") -> None:
    """Say how many rows went into a table, and what was removed from it."""
    from closerlook_common.console.messages import line

    if written.merged is None:
        return
    print_notes(console, written.outdated)
    here, whole = (counted(len(table), "row") for table in (written.evaluation.table, written.merged.table))
    added = f"{here}{of} put into {output} ({whole})"
    console.print(line(added), soft_wrap=True)
    print_dropped(console, written.merged, command)


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Print notes, a line each."""
    from closerlook_common.console.messages import problem

    for note in notes:
        console.print(problem("note", "yellow", note), soft_wrap=True)


def print_failures(console: Console, failures: Mapping[str, str], word: str = "failed") -> int:
    """Print what failed and why, a line each; return the exit code."""
    from closerlook_common.console.messages import problem

    for name, reason in failures.items():
        console.print(problem(word, "red", f"{name}: {reason}"), soft_wrap=True)
    return int(bool(failures))
