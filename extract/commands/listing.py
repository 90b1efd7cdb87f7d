"""Rows for a terminal of any width: nothing is cut off, and nothing is squeezed into columns of three letters."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

_GAP, _INDENT = 2, 4


class Column(NamedTuple):
    """A column: its title, whether it is set to the right, and whether it is prose, which may be wrapped."""

    title: str
    right: bool = False
    prose: bool = False


class Row(NamedTuple):
    """A row: a cell for each column, and a style of rich."""

    cells: Sequence[str]
    style: str = ""


def wide_console(piped: int) -> Console:
    """Return a console as wide as the terminal, or ``piped`` columns where the output goes elsewhere."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else piped)


def print_rows(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print rows under their titles.

    Where a row does not fit on one line, its first cell is alone and the others below it, indented, on as many
    lines as they need; prose that does not fit next to the other cells goes below them.

    Parameters
    ----------
    console
        Whose width counts.
    columns
        The first one names the row.
    rows
        In order.
    """
    from rich.text import Text

    from closerlook_common.console.terminal import printable

    rows = [row._replace(cells=[printable(cell) for cell in row.cells]) for row in rows]
    lines: list[tuple[str, str]] = []
    fixed = [i for i, column in enumerate(columns) if not column.prose]
    prose = [i for i, column in enumerate(columns) if column.prose]
    widths = {i: max(len(columns[i].title), *(len(row.cells[i]) for row in rows), 1) for i in fixed}
    total = sum(widths.values()) + _GAP * (len(fixed) - 1)
    beside = console.width - total - _GAP
    stated = [" ".join(row.cells[i] for i in prose if row.cells[i]) for row in rows]
    is_beside = bool(prose) and max(map(len, stated), default=0) <= beside
    split = total > console.width

    def line(cells: Sequence[str], indices: Sequence[int]) -> str:
        parts = [cells[i].rjust(widths[i]) if columns[i].right else cells[i].ljust(widths[i]) for i in indices]
        return (" " * _GAP).join(parts)

    below: list[list[int]] = [[]]
    for i in fixed[1:] if split else ():
        if below[-1] and _INDENT + sum(widths[k] + _GAP for k in below[-1]) + widths[i] > console.width:
            below.append([])
        below[-1].append(i)
    titles = [column.title for column in columns]
    end = f"{' ' * _GAP}{' '.join(titles[i] for i in prose)}" if is_beside else ""
    if split:
        lines += [(titles[fixed[0]], "bold"), *((" " * _INDENT + line(titles, part), "bold") for part in below)]
    else:
        lines.append((line(titles, fixed) + end, "bold"))
    lines.append(("─" * min(console.width, max(len(text.rstrip()) for text, _ in lines)), "dim"))
    for row, remark in zip(rows, stated, strict=True):
        if split:
            lines += [(row.cells[fixed[0]], row.style)]
            lines += [(" " * _INDENT + line(row.cells, part), row.style) for part in below]
        else:
            lines.append((line(row.cells, fixed) + (" " * _GAP + remark if is_beside else ""), row.style))
        if remark and not is_beside:
            room = max(console.width - _INDENT, 20)
            wrapped = textwrap.wrap(remark, room, break_long_words=False, break_on_hyphens=False)
            lines += [(" " * _INDENT + part, row.style) for part in wrapped]
    for text, style in lines:
        console.print(Text(text.rstrip(), style=style), soft_wrap=True)
