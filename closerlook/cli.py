"""The command line of everything: ``closerlook extract``, ``closerlook analyze``, ``closerlook cache``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from closerlook.programs import PROGRAMS, SHELLS
from closerlook_common.console.command_line import EXIT_BAD_INPUT
from closerlook_common.distribution import VERSION
from closerlook_common.errors import nearest

HELP = """\
usage: closerlook PROGRAM COMMAND [options]

Run every CLIP and ImageNet model once; ask about its safety as often as you like.

programs:
{programs}
  completion  print a script that completes commands and options: closerlook completion {shells}

options:
  -h, --help  this text; 'closerlook PROGRAM --help' lists the commands of a program
  --version   print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``closerlook``.

    Parameters
    ----------
    argv
        Arguments; the process's own when None.

    Returns
    -------
    int
        The exit code of the program; 0 for help and version, 2 for bad input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        programs = "\n".join(f"  {name:<10}  {program.help}" for name, program in PROGRAMS.items())
        print(HELP.format(programs=programs, shells="|".join(SHELLS)), end="")
        return 0 if words else EXIT_BAD_INPUT
    first, rest = words[0], words[1:]
    if first == "--version":
        print(f"closerlook {VERSION}")
        return 0
    if first == "completion":
        return _completion(rest)
    if first not in PROGRAMS:
        known = [*PROGRAMS, "completion"]
        print(f"closerlook: no program {first!r}{nearest(first, known, list_all=True)}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    code: int = importlib.import_module(PROGRAMS[first].module).main(rest, prog=f"closerlook {first}")
    return code


def _completion(words: Sequence[str]) -> int:
    if words and words[0] in ("-h", "--help"):
        print(
            "usage: closerlook completion bash|zsh|fish\n\n"
            "Print a script that completes the commands and options of closerlook, extract and analyze.\n\n"
            "  bash   source <(closerlook completion bash)        in ~/.bashrc\n"
            "  zsh    source <(closerlook completion zsh)         in ~/.zshrc, after compinit\n"
            "  fish   closerlook completion fish | source         in ~/.config/fish/config.fish"
        )
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        print(f"closerlook completion: name one shell: {', '.join(SHELLS)}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    from closerlook.completion import script

    print(script(words[0]), end="")
    return 0
