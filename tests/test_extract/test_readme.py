"""The README's commands are ones that the programs understand: no flag in it is invented or out of date."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from closerlook_common.console.command_line import add_common_options

README = Path(__file__).parents[2] / "README.md"


def _commands() -> list[str]:
    text = README.read_text(encoding="utf-8")
    lines = re.findall(r"^((?:extract|analyze|python -m cache_schema) .*)$", text, re.MULTILINE)
    return [*lines, *re.findall(r"`((?:extract|analyze) [^`]+)`", text)]


def _words(line: str) -> tuple[str, list[str]]:
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "3"), comments=True)
    words = words[: words.index(">")] if ">" in words else words  # what follows is the shell's
    return ("cache_schema", words[3:]) if words[0] == "python" else (words[0], words[1:])


def test_the_readme_has_commands_of_all_three() -> None:
    programs = [_words(line)[0] for line in _commands()]
    assert min(programs.count(name) for name in ("extract", "analyze", "cache_schema")) >= 4


@pytest.mark.parametrize("line", _commands())
def test_a_command_of_the_readme_is_understood(line: str) -> None:
    program, words = _words(line)
    cli = importlib.import_module(f"{program}.cli")
    commands = cli.COMMANDS
    name, *rest = words if words[0] in commands else ["run", *words]
    parser = argparse.ArgumentParser(prog=f"{program} {name}")
    importlib.import_module(commands[name].module).add_arguments(parser)
    add_common_options(parser, getattr(cli, "REGISTRIES", None))
    parser.parse_args(rest)  # exits, and so fails, where a flag is unknown or one is missing
