"""Run a command line: find the subcommand, run it, turn its errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

from closerlook_common import plugins
from closerlook_common.console.messages import flags_of, sentence
from closerlook_common.console.reporting import add_options, reporting
from closerlook_common.console.terminal import printable
from closerlook_common.console.waiting import printing
from closerlook_common.distribution import VERSION, install_line
from closerlook_common.errors import CloserlookError, nearest
from closerlook_common.redaction import printable_lines, redact

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


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
"""Errors of the system (disk full, no permission ...): the file's name and the system's message are enough."""


class Command(NamedTuple):
    """A subcommand: the module with ``add_arguments(parser)`` and ``run(args) -> int``, and its line of help."""

    module: str
    help: str


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option in one line with the nearest valid one; argparse would print all options."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].partition(" ")[0].partition("=")[0]
        near = nearest(unknown, self._option_string_actions) if unknown.startswith("-") else ""
        line = printable(redact(f"{self.prog}: {message}"))
        self.exit(EXIT_BAD_INPUT, f"{line}{near or ';'} '{self.prog} --help' lists its options.\n")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps the paragraphs of a description to the terminal's width; indented lines (examples) stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = text.strip().split("\n\n")
        whole = [
            block if re.search("^ ", block, re.MULTILINE) else textwrap.fill(block, width, break_on_hyphens=False)
            for block in blocks
        ]
        return textwrap.indent("\n\n".join(whole), indent)


def _parser(prog: str, description: str, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    width = max(map(len, commands))
    lines = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in commands.items())
    return _Parser(
        prog=prog,
        description=description,
        epilog=f"commands:\n{lines}\n\n'{prog} COMMAND --help' lists a command's options.",
        formatter_class=_HelpFormatter,
        usage=f"{prog} COMMAND [options]",
    )


def run_command(
    prog: str,
    description: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None = None,
    *,
    default: str | None = None,
    registries: Mapping[str, str] | None = None,
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
        Subcommand to run when the first word is an option (``extract --model-list models.txt``).
    registries
        Kind of plug-in -> module of its registry, of those that the program uses; its commands then take ``--plugins``.

    Returns
    -------
    int
        0 done; 1 done but something failed; 2 bad input; 130 interrupted; 143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    plugins.clear_inherited()
    if not words or words[0] in ("-h", "--help"):
        parser = _parser(prog, description, commands)
        if default is not None:
            importlib.import_module(commands[default].module).add_arguments(parser)
            add_common_options(parser, registries)
        parser.print_help()
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        print(f"{prog} (closerlook {VERSION})")
        return 0
    try:
        Path.cwd()
    except FileNotFoundError:
        print(f"{prog}: the working folder was deleted; change to another one.", file=sys.stderr)
        return EXIT_BAD_INPUT
    if words[0] in commands:
        name, rest = words[0], words[1:]
    elif default is not None and words[0].startswith("-"):
        name, rest = default, words
    else:
        print(f"{prog}: no command {words[0]!r}{nearest(words[0], commands, list_all=True)}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        module = importlib.import_module(commands[name].module)
        shown = prog if name == default and words[0] != name else f"{prog} {name}"
        parser = _Parser(prog=shown, description=module.__doc__, formatter_class=_HelpFormatter)
        module.add_arguments(parser)
        add_common_options(parser, registries)
        try:
            args = parser.parse_args(rest)
        except SystemExit as stopped:  # --help, or an argument that is wrong
            return int(stopped.code or 0)
        # For people who wait: in the file of a job or a pipe, an error is the only line.
        work = printing(f"{shown} is working" if sys.stderr.isatty() else "")
        with _stopped_by_scheduler(), reporting(args, [prog, *words]) as codes, work, flags_of(parser):
            codes.append(_run(prog, module, args, registries or {}))
        return codes[-1]
    except CloserlookError as error:
        print(f"{prog}: {sentence(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        return _missing_module(prog, error)
    except KeyboardInterrupt as stopped:  # while modules were loaded, or again while the command was ending
        return _exit_code_of(stopped)


def add_common_options(parser: argparse.ArgumentParser, registries: Mapping[str, str] | None) -> None:
    """Add the options that every subcommand of a program takes."""
    if registries:
        *first, last = registries
        kinds = f"{', '.join(first)} and {last}" if first else last
        parser.add_argument(
            "--plugins",
            action="append",
            default=[],
            metavar="FILE.py",
            help=f"run this file and use the {kinds} that it defines; may be repeated",
        )
    add_options(parser)


def _run(prog: str, module: ModuleType, args: argparse.Namespace, registries: Mapping[str, str]) -> int:
    """Run a subcommand; turn an exception into one line and an exit code."""
    try:
        if registries and args.plugins:
            plugins.load_files(args.plugins, registries)
        return int(module.run(args))
    except CloserlookError as error:
        if args.verbose:
            print(printable_lines(redact(traceback.format_exc())), end="", file=sys.stderr)
        print(f"{prog}: {sentence(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        return _missing_module(prog, error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _working_folder_is_gone():
            print(f"{prog}: the working folder was deleted; change to another one.", file=sys.stderr)
            return EXIT_BAD_INPUT
        if error.errno not in _OF_THE_MACHINE or not error.filename:
            raise
        print(f"{prog}: {printable(error.filename)}: {error.strerror}.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except MemoryError:
        print(f"{prog}: this machine has too little memory.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as stopped:
        print(f"\n{prog}: interrupted; finished work is kept, run the same command again to continue.", file=sys.stderr)
        return _exit_code_of(stopped)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: a scheduler or the system ends the process."""


def _exit_code_of(stopped: KeyboardInterrupt) -> int:
    return EXIT_TERMINATED if isinstance(stopped, _TerminatedError) else EXIT_INTERRUPTED


@contextlib.contextmanager
def _stopped_by_scheduler() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: keep finished work, remove unfinished files."""
    owner = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() != owner:  # a forked worker inherits this handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _working_folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _missing_module(prog: str, error: ModuleNotFoundError) -> int:
    """Report which extra installs a missing module; raise the error if none does."""
    extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    print(f"{prog}: this command needs {error.name}: {install_line(extra)}", file=sys.stderr)
    return EXIT_BAD_INPUT


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
    "s3fs": "s3",
    "gcsfs": "gs",
    "aiohttp": "web",
    "imagenet_x": "imagenet-x",
}
