"""The programs of this distribution, and the shells that complete them."""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    """A program of this distribution.

    Attributes
    ----------
    module
        With ``main(argv, prog=...)``, ``COMMANDS`` and perhaps ``DEFAULT``.
    help
        One line.
    """

    module: str
    help: str


PROGRAMS = {
    "extract": Program("extract.cli", "run models over datasets, once, into a cache (also a command of its own)"),
    "analyze": Program("analyze.cli", "numbers, tables, figures and a report from a cache (also of its own)"),
    "cache": Program("cache_schema.cli", "look at, check, copy and convert stores (also python -m cache_schema)"),
}
SHELLS = ("bash", "zsh", "fish")
