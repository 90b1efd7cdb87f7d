"""Tables of all commands: one style, made in one place."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from closerlook_common.console.terminal import plain_table

ROOT = Path(__file__).parents[2]


def test_headings_stand_over_a_rule_without_a_box() -> None:
    table = plain_table("a [b] title", "model", "top1", "n")
    table.add_row("one", "0.5", "10")
    table.add_row("a longer name", "0.25", "1,000")
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "a [b] title",
        "model          top1      n",
        "──────────────────────────",
        "one             0.5     10",
        "a longer name  0.25  1,000",
    ]


@pytest.mark.parametrize("package", ["analyze", "extract", "cache_schema"])
def test_no_command_makes_a_table_of_another_style(package: str) -> None:
    own = re.compile(r"^\s*from rich\.table import (?!Column$)|rich\.table\.Table\(|from rich import box", re.MULTILINE)
    typing_only = re.compile(r"if TYPE_CHECKING:\n(?:    .*\n|\n)+")
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name != "terminal.py":
            assert not own.search(typing_only.sub("", path.read_text(encoding="utf-8"))), path
