"""Completion of commands and options in bash, zsh and fish: scripts made from the parsers of all commands."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from closerlook.programs import PROGRAMS, SHELLS
from closerlook_common.console.command_line import Command, add_common_options

NAMES = ("closerlook", "extract", "analyze")
"""Commands of a shell that the scripts complete."""


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes
    ----------
    flags
        ``-o``, ``--output``.
    help
        One line, perhaps empty.
    takes_value
        Whether a value follows.
    choices
        Values that it may have; empty for any.
    """

    flags: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Level:
    """What can follow some words of a command line.

    Attributes
    ----------
    words
        Next word -> its help.
    options
        Options that are taken here.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    options: tuple[Option, ...] = ()


def levels() -> dict[str, Level]:
    """Return what follows ``closerlook``, ``analyze``, ``analyze metrics``, ``cache show``, ``extract`` ..."""
    found = {
        "closerlook": Level({name: program.help for name, program in PROGRAMS.items()} | {"completion": "for shells"}),
        "completion": Level(dict.fromkeys(SHELLS, "")),
    }
    for name, program in PROGRAMS.items():
        module = importlib.import_module(program.module)
        commands: Mapping[str, Command] = module.COMMANDS
        default, registries = getattr(module, "DEFAULT", ""), getattr(module, "REGISTRIES", None)
        found[name] = Level(
            {command: entry.help for command, entry in commands.items()},
            _options(commands[default], registries) if default else (),
        )
        for command, entry in commands.items():
            found[f"{name} {command}"] = Level({}, _options(entry, registries))
    return found


def _options(command: Command, registries: Mapping[str, str] | None) -> tuple[Option, ...]:
    parser = argparse.ArgumentParser()
    importlib.import_module(command.module).add_arguments(parser)
    add_common_options(parser, registries)
    return tuple(
        Option(
            tuple(action.option_strings),
            " ".join((action.help or "").replace("%%", "%").split()) if action.help != argparse.SUPPRESS else "",
            action.nargs != 0,
            tuple(map(str, action.choices or ())),
        )
        for action in parser._actions
        if action.option_strings
    )


def script(shell: str) -> str:
    """Return the script for a shell: ``bash``, ``zsh`` or ``fish``."""
    return _SCRIPTS[shell](levels())


def _all_options(found: Mapping[str, Level]) -> Iterator[tuple[str, Option]]:
    for path, level in found.items():
        for option in level.options:
            yield path, option


def _bash(found: Mapping[str, Level]) -> str:
    words = [
        f"    {_pattern(path)} words={shlex.quote(' '.join([*level.words, *_flags(level)]))} ;;"
        for path, level in found.items()
    ]
    values = [
        f"    {'|'.join(shlex.quote(f'{path} {flag}') for flag in option.flags)})"
        f" values={shlex.quote(' '.join(option.choices))}; takes=1 ;;"
        for path, option in _all_options(found)
        if option.takes_value
    ]
    return _BASH.format(paths=_paths(found), words="\n".join(words), values="\n".join(values), names=" ".join(NAMES))


def _zsh(found: Mapping[str, Level]) -> str:
    words = []
    for path, level in found.items():
        entries = [*level.words.items(), *((flag, option.help) for option in level.options for flag in option.flags)]
        items = " ".join(shlex.quote(f"{_colon(name)}:{text}" if text else _colon(name)) for name, text in entries)
        words.append(f"    {_pattern(path)} items=({items}) ;;")
    values = [
        f"    {'|'.join(shlex.quote(f'{path} {flag}') for flag in option.flags)})"
        f" values=({' '.join(map(shlex.quote, option.choices))}); takes=1 ;;"
        for path, option in _all_options(found)
        if option.takes_value
    ]
    return _ZSH.format(paths=_paths(found), words="\n".join(words), values="\n".join(values), names=" ".join(NAMES))


def _fish(found: Mapping[str, Level]) -> str:
    lines = []
    for path, level in found.items():
        at = f"-n {shlex.quote(f'__closerlook_at {shlex.quote(path)}')}"
        for name in NAMES:
            if name not in ("closerlook", path.partition(" ")[0]):
                continue
            lines += [
                f"complete -c {name} {at} -f -a {shlex.quote(word)}{_described(text)}"
                for word, text in level.words.items()
            ]
            for option in level.options:
                flags = " ".join(
                    f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
                )
                value = " -r" if option.takes_value else ""
                if option.choices:
                    value = f" -x -a {shlex.quote(' '.join(option.choices))}"
                lines.append(f"complete -c {name} {at} {flags}{value}{_described(option.help)}")
    paths = " ".join(shlex.quote(path) for path in found)
    return _FISH.format(paths=paths, lines="\n".join(lines))


def _described(text: str) -> str:
    return f" -d {_fish_quote(text)}" if text else ""


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _flags(level: Level) -> list[str]:
    return [flag for option in level.options for flag in option.flags]


def _colon(text: str) -> str:
    return text.replace(":", "\\:")


def _pattern(path: str) -> str:
    return f"{shlex.quote(path)})"


def _paths(found: Mapping[str, Level]) -> str:
    return "|".join(shlex.quote(path) for path in found)


_BASH = """\
# Completion of closerlook, extract and analyze: source <(closerlook completion bash)
_closerlook() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local path=${{COMP_WORDS[0]##*/}} word longer words= values= takes=
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    longer="$path $word"
    [ "$path" = closerlook ] && longer=$word
    case "$longer" in
      {paths}) path=$longer ;;
    esac
  done
  case "$path $previous" in
{values}
  esac
  case "$path" in
{words}
  esac
  COMPREPLY=()
  if [ -n "$takes" ]; then
    [ -n "$values" ] && COMPREPLY=($(compgen -W "$values" -- "$current"))
  elif [ -n "$current" ] || [ -n "$words" ]; then
    [[ "$current" == -* || "$path" != *" "* ]] && COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}}
complete -o default -F _closerlook {names}
"""

_ZSH = """\
#compdef {names}
# Completion of closerlook, extract and analyze: source <(closerlook completion zsh), after compinit
_closerlook() {{
  local word longer takes= place=${{words[1]:t}} previous=${{words[CURRENT-1]}}
  local -a items values
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    longer="$place $word"
    [[ "$place" == closerlook ]] && longer=$word
    case "$longer" in
      {paths}) place=$longer ;;
    esac
  done
  case "$place $previous" in
{values}
  esac
  case "$place" in
{words}
  esac
  if [[ -n "$takes" ]]; then
    if (( $#values )); then compadd -a values; else _files; fi
  elif [[ "${{words[CURRENT]}}" == -* || "$place" != *" "* ]]; then
    _describe closerlook items || _files
  else
    _files
  fi
}}
compdef _closerlook {names}
"""

_FISH = """\
# Completion of closerlook, extract and analyze: closerlook completion fish | source
function __closerlook_at
    set -l words (commandline -opc)
    set -l place (basename -- $words[1])
    for word in $words[2..]
        set -l longer "$place $word"
        test $place = closerlook; and set longer $word
        contains -- $longer {paths}; and set place $longer
    end
    test "$place" = "$argv[1]"
end
{lines}
"""

_SCRIPTS: Mapping[str, Callable[[Mapping[str, Level]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
