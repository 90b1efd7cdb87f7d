"""One style for printed tables: a bold title, headings above a rule, no boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closerlook_common.redaction import printable as printable
from closerlook_common.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

GAP = 2
"""Blanks between two columns of a table."""


def as_text(text: object, style: str = "") -> Text:
    """Return a rich text: markup is not interpreted, invisible characters are escaped."""
    from rich.text import Text

    return Text(printable(text), style=style)


def escaped(text: object) -> str:
    """Return a string to put into rich markup: its own markup and invisible characters are escaped."""
    from rich.markup import escape

    return escape(printable(text))


def counted(number: int, word: str, plural: str = "") -> str:
    """Return a number and a noun, in the plural (with an s, where none is given) unless the number is 1.

    Examples
    --------
    >>> counted(1, "model"), counted(1200, "model")
    ('1 model', '1,200 models')
    >>> counted(2, "summary", "summaries")
    '2 summaries'
    """
    return f"{number:,} {word}" if number == 1 else f"{number:,} {plural or word + 's'}"


def plain_table(title: str = "", *headings: str) -> Table:
    """Return an empty table in the style of all commands.

    Parameters
    ----------
    title
        Printed above the table in bold; markup in it is not interpreted.
    *headings
        First columns: the first is left-aligned, the others are right-aligned; none is wrapped.
    """
    from rich.box import Box
    from rich.table import Table

    # Rich's own SIMPLE_HEAD adds blank lines and an indent.
    rule = Box("    \n    \n ── \n    \n    \n ── \n    \n    \n")

    class WithWholeTitle(Table):
        """Wraps title and caption at the width of the page, not of the table, which may be narrower."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            title, caption = self.title, self.caption
            self.title = self.caption = None
            try:
                if title:
                    yield console.render_str(title, style="table.title") if isinstance(title, str) else title
                yield from super().__rich_console__(console, options)
                if caption:
                    yield console.render_str(caption, style="table.caption") if isinstance(caption, str) else caption
            finally:
                self.title, self.caption = title, caption

    table = WithWholeTitle(
        title=as_text(title, "bold") if title else None,
        title_justify="left",
        caption_justify="left",
        box=rule,
        border_style="dim",
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
        collapse_padding=True,
    )
    for index, heading in enumerate(headings):
        table.add_column(as_text(heading), justify="left" if index == 0 else "right", no_wrap=True)
    return table


def with_name(name: object, message: object) -> str:
    """Return a message with the name of its subject in front, unless the message contains the name already."""
    return redact(str(message) if str(name) in str(message) else f"{name}: {message}")
