"""One style for the tables that any command prints: a title in bold, headings over a rule, no boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""Columns of blank between two columns of a table."""


def plain_table(title: str = "", *headings: str) -> Table:
    """Return an empty table in the style of all commands.

    Parameters
    ----------
    title
        Printed above, in bold, as it is: nothing in it is markup.
    *headings
        First columns: the first one to the left, the others to the right; none of them is wrapped.
    """
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    # Rich's own SIMPLE_HEAD pads a table with blank lines and indents it; listings of other commands do neither.
    rule = Box("    \n    \n ── \n    \n    \n ── \n    \n    \n")
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        caption_justify="left",
        box=rule,
        border_style="dim",
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
        collapse_padding=True,
    )
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place == 0 else "right", no_wrap=True)
    return table


def told_of(name: object, what: object) -> str:
    """Return what is said of something, after its name unless the words have it already."""
    return str(what) if str(name) in str(what) else f"{name}: {what}"
