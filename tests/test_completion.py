"""Completion scripts: made from the parsers, and used by the shells themselves."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

from closerlook.cli import main
from closerlook.completion import levels, script
from closerlook.programs import PROGRAMS, SHELLS

WANTED = [
    ("closerlook an", {"analyze"}),
    ("closerlook analyze me", {"metrics"}),
    ("closerlook cache sh", {"show"}),
    ("analyze metrics --en", {"--engine"}),
    ("analyze metrics --engine ", {"local", "ray"}),
    ("extract --model-l", {"--model-list"}),
    ("extract sta", {"status"}),
    ("closerlook completion z", {"zsh"}),
]

BASH = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_closerlook
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
autoload -Uz compinit; compinit -u -D
source {script}
compadd() {{ print -rl -- "${{(@P)2}}"; }}
_describe() {{ local item; for item in "${{(@P)2}}"; do print -r -- "${{item%%:*}}"; done; }}
_files() {{ :; }}
words=({words}); CURRENT=$#words
_closerlook
"""


def needed(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not on this machine")
    return found


def written(shell: str, folder: Path) -> Path:
    path = folder / f"closerlook.{shell}"
    path.write_text(script(shell))
    return path


def printed(*command: str) -> set[str]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return {line for line in done.stdout.splitlines() if line}


def quoted(line: str) -> str:
    """Return the words as a shell has them; a space at the end begins an empty one."""
    return " ".join(f"'{word}'" for word in line.split(" "))


@pytest.mark.parametrize(("line", "expected"), WANTED)
def test_bash_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    code = BASH.format(script=written("bash", tmp_path), words=quoted(line))
    assert printed(needed("bash"), "--norc", "-c", code) == expected


@pytest.mark.parametrize(("line", "expected"), WANTED)
def test_fish_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    code = f"source {written('fish', tmp_path)}; complete -C {line!r}"
    found = printed(needed("fish"), "--no-config", "-c", code)
    assert {entry.partition("\t")[0] for entry in found} == expected


@pytest.mark.parametrize(("line", "expected"), WANTED)
def test_zsh_offers(line: str, expected: set[str], tmp_path: Path) -> None:
    """Zsh itself filters what is offered by what was typed; here the offer is looked at."""
    code = ZSH.format(script=written("zsh", tmp_path), words=quoted(line))
    typed = line.rpartition(" ")[2]
    offered = printed(needed("zsh"), "-f", "-c", code)
    assert {word for word in offered if word.startswith(typed)} == expected


def test_a_file_is_completed_where_no_word_is_known(tmp_path: Path) -> None:
    code = BASH.format(script=written("bash", tmp_path), words=quoted("analyze metrics ca"))
    assert printed(needed("bash"), "--norc", "-c", code) == set(), "bash then completes files (-o default)"
    assert "complete -o default" in script("bash")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    text = script(shell)
    for name, program in PROGRAMS.items():
        for command, entry in importlib.import_module(program.module).COMMANDS.items():
            assert command in text, (name, command)
            parser = argparse.ArgumentParser()
            importlib.import_module(entry.module).add_arguments(parser)
            flags = {flag for action in parser._actions for flag in action.option_strings}
            known = {flag for option in levels()[f"{name} {command}"].options for flag in option.flags}
            assert flags <= known
            assert all((f"-l {flag[2:]}" if shell == "fish" else flag) in text for flag in flags if flag[:2] == "--")


def test_a_shell_that_is_not_known_is_one_line(capsys) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "closerlook completion: name one shell: bash, zsh, fish.\n"
    assert main(["completion"]) == 2
    assert main(["completion", "--help"]) == 0
