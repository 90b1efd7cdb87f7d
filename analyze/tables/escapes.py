"""Names of others as text in LaTeX, Markdown and HTML: printed as they are, never obeyed."""

from __future__ import annotations

import html
import re

from closerlook_common.console.terminal import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "∞": r"$\infty$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
_LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
"""Between two of these TeX would print a dash or a quotation mark: an empty group keeps them apart."""
_MARKDOWN = str.maketrans({c: "\\" + c for c in "\\`*_[]<>|#~&$"})
_LINKS = re.compile(r"(?<=\w):(?=//)|(?<=www)\.|(?<=\w)@(?=\w)")
"""What turns a name into a link where a renderer looks for addresses."""


def one_line(text: str) -> str:
    """Return text on one line, runs of blanks as one, without characters that cannot be seen."""
    return printable(" ".join(text.split()))


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is (line breaks become spaces)."""
    parts = _LIGATURES.split(one_line(text))
    escaped = "{}".join("".join(_LATEX.get(c, c) for c in part) for part in parts)
    # After the end of a row, a bracket or a star would be read as an argument of it.
    return "{}" + escaped if escaped[:1] in ("[", "*") else escaped


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also inside a table."""
    escaped = _LINKS.sub(r"\\\g<0>", one_line(text).translate(_MARKDOWN))
    # At the start of a line these would begin a list, or underline a heading.
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escaped)


def escape_html(text: str) -> str:
    """Return text that HTML shows as it is, in an element or an attribute."""
    return html.escape(one_line(text))
