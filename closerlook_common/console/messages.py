"""From the text of an error to what a command prints: a sentence, with flags for arguments and nothing invisible.

A message of a library names an argument in backticks, as Python knows it: ``give `reference` ``. A command shows the
flag of that argument, ``give --reference``; ```overwrite=True``` becomes ``--overwrite`` and
```dtype="float32"``` becomes ``--dtype float32``.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from closerlook_common.console.terminal import printable
from closerlook_common.redaction import redact

if TYPE_CHECKING:
    from rich.text import Text

_ARGUMENT = re.compile(r"`([a-z][a-z_]*)(?:=([^`\s]+))?`")
_parsers: list[argparse.ArgumentParser] = []
"""Of the commands that run in this process, the innermost last."""


@contextlib.contextmanager
def flags_of(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Let `with_flags` use the flags of a command while it runs."""
    _parsers.append(parser)
    try:
        yield
    finally:
        _parsers.pop()


def with_flags(message: object) -> str:
    """Return a message with the flags of the running command in place of the arguments that it has in backticks.

    Arguments that the command does not have stay as they are; so does every message where no command runs.
    """
    text = str(message)
    if not _parsers:
        return text
    flags: dict[str, argparse.Action] = {}
    for action in _parsers[-1]._actions:
        names = {action.dest, *(word.lstrip("-").replace("-", "_") for word in action.option_strings)}
        flags |= {name: action for name in names if action.option_strings}

    def flag(match: re.Match[str]) -> str:
        action = flags.get(match[1])
        if action is None:
            return match[0]
        long = next((word for word in action.option_strings if word.startswith("--")), action.option_strings[0])
        is_switch = action.nargs == 0
        return long if match[2] is None or is_switch else f"{long} {match[2].strip(chr(34))}"

    return _ARGUMENT.sub(flag, text)


def sentence(text: object) -> str:
    """Return a message as a command prints it: flags, escapes for control characters, no secrets, a full stop.

    A line break inside is an escape, since names may hold one. There is no full stop after a sign that ends the
    message or is part of what to type.

    Examples
    --------
    >>> sentence("no model 'vit'")
    "no model 'vit'."
    """
    message = printable(redact(with_flags(text)).strip())
    return message + "." if message[-1:].isalnum() or message[-1:] in "'\")]%" else message


def problem(word: str, style: str, text: object) -> Text:
    """Return a line such as ``failed MODEL: REASON.`` with its first word in a colour.

    Examples
    --------
    >>> problem("failed", "red", "vit-b16: no features").plain
    'failed vit-b16: no features.'
    """
    from rich.text import Text

    return Text.assemble((word, style), " ", sentence(text))


def line(text: object, style: str = "") -> Text:
    """Return a message as a line for a console of rich: nothing in it is markup, nothing in it is invisible."""
    from rich.text import Text

    return Text(sentence(text), style=style)


def report(text: object, style: str = "") -> None:
    """Print a message on standard error, one line whatever the terminal's width."""
    from rich.console import Console

    Console(stderr=True).print(line(text, style), soft_wrap=True)
