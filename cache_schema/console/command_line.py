"""One way to run a command line: subcommands by name in, exit code out; shared by the three packages."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from cache_schema.errors import CloserlookError, nearest

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


_OF_THE_MACHINE = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""What no program can mend: the name of the file and the system's word say all there is to say."""


class Command(NamedTuple):
    """A subcommand: the module with ``add_arguments(parser)`` and ``run(args) -> int``, and its line of help."""

    module: str
    help: str


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest option, where argparse prints all options before it."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].partition(" ")[0].partition("=")[0]
        near = nearest(unknown, self._option_string_actions) if unknown.startswith("-") else ""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}{near or ';'} '{self.prog} --help' tells what it takes\n")


def _parser(prog: str, description: str, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    width = max(map(len, commands))
    lines = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in commands.items())
    return _Parser(
        prog=prog,
        description=description,
        epilog=f"commands:\n{lines}\n\n'{prog} COMMAND --help' tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{prog} COMMAND [options]",
    )


def run_command(
    prog: str,
    description: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None = None,
    *,
    default: str | None = None,
) -> int:
    """Run one subcommand and turn what it raises into one line and an exit code.

    Only the chosen subcommand's module is imported, so ``--help`` stays fast.

    Parameters
    ----------
    prog
        Name of the program as typed.
    description
        What the program does, for ``--help``.
    commands
        Subcommands by name.
    argv
        Arguments; the process's own when None.
    default
        Subcommand that is meant when the first word is an option (``extract --model-list models.txt``).

    Returns
    -------
    int
        0 done; 1 done but something failed; 2 bad input; 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        parser = _parser(prog, description, commands)
        if default is not None:
            importlib.import_module(commands[default].module).add_arguments(parser)
        parser.print_help()
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"{prog} (closerlook {version('closerlook')})")
        return 0
    if words[0] in commands:
        name, rest = words[0], words[1:]
    elif default is not None and words[0].startswith("-"):
        name, rest = default, words
    else:
        print(f"{prog}: no command {words[0]!r}{nearest(words[0], commands, told=True)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        module = importlib.import_module(commands[name].module)
        shown = prog if name == default and words[0] != name else f"{prog} {name}"
        parser = _Parser(
            prog=shown, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(rest)))
    except CloserlookError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"{prog}: this command needs {error.name}: pip install 'closerlook[{extra}]'", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE or not error.filename:
            raise
        print(f"{prog}: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED


_EXTRA_OF = {
    "torch": "extract",
    "torchvision": "extract",
    "timm": "extract",
    "open_clip": "extract",
    "transformers": "extract",
    "safetensors": "extract",
    "PIL": "extract",
    "ray": "ray",
    "fsspec": "remote",
    "s3fs": "remote",
    "gcsfs": "remote",
    "aiohttp": "remote",
    "imagenet_x": "imagenet-x",
}
