"""Control the messages on standard error: ``-v``, ``--quiet``, ``--log``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from closerlook_common.console.waiting import on_output
from closerlook_common.errors import UserError
from closerlook_common.redaction import printable, printable_lines, redact

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_REDRAWN = "\x1b[2K"
"""Control sequences with which a progress bar erases its line."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every subcommand takes."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also print libraries' messages, times, and the traceback of an error",
    )
    group.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing on standard error unless something fails"
    )
    group.add_argument("--log", type=Path, metavar="FILE", help="append all messages to a file, with times")


class Messages:
    """Standard error of one command: printed, held back or copied to a file.

    Parameters
    ----------
    quiet
        Hold messages back, and print them only if the command fails.
    log
        File to append to, or None.
    """

    def __init__(self, *, quiet: bool = False, log: TextIO | None = None) -> None:
        self._to = sys.stderr
        self._quiet, self._log = quiet, log
        self._held: list[str] = []
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)

    def isatty(self) -> bool:
        """Whether progress can be drawn."""
        return self._to.isatty() and not self._quiet

    def write(self, text: str) -> int:
        """Print or hold back a text, and copy it to the log."""
        on_output()
        if self._quiet:
            self._held.append(text)
        else:
            self._to.write(text)
        if self._log is not None:
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self.note(line)
        return len(text)

    def note(self, line: str) -> None:
        """Write a line to the log only; skip lines of progress bars."""
        shown = printable(redact(_CONTROL.sub("", line.rpartition("\r")[2]).rstrip()))
        if self._log is not None and shown and _REDRAWN not in line:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shown}\n")
            self._log.flush()

    def flush(self) -> None:
        """Flush the stream."""
        self._to.flush()

    def finish(self, *, failed: bool) -> None:
        """Print messages that were held back, if the command failed; end the log."""
        if self._line:
            self.note(self._line)
        if failed:
            self._to.write("".join(self._held))
        self._held = []


class _Printable(logging.Formatter):
    """Formats messages of libraries, which may hold names of others."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(redact(super().format(record)))


@contextlib.contextmanager
def reporting(args: argparse.Namespace, words: Sequence[str]) -> Iterator[list[int]]:
    """Apply the options to standard error while a command runs.

    Parameters
    ----------
    args
        With ``verbose``, ``quiet`` and ``log``.
    words
        The command line, for the log.

    Yields
    ------
    list of int
        Append the exit code to it.
    """
    if args.verbose and args.quiet:
        raise UserError("-v and --quiet contradict each other: give one of them")
    log = None
    if args.log is not None:
        try:
            log = args.log.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"--log {args.log}: {error.strerror}") from None
    messages = Messages(quiet=args.quiet, log=log)
    before, root, start = sys.stderr, logging.getLogger(), time.monotonic()
    codes: list[int] = []
    level, handler = root.level, logging.StreamHandler(messages)
    handler.setFormatter(_Printable("%(name)s: %(message)s"))
    sys.stderr = messages
    if args.verbose:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    messages.note(printable(f"$ {' '.join(words)}"))
    try:
        yield codes
        if args.verbose:
            print(f"done in {time.monotonic() - start:.1f} s", file=messages)
    except BaseException as error:
        for line in "".join(traceback.format_exception(error)).splitlines():
            messages.note(printable(line))
        codes.append(1)
        raise
    finally:
        messages.note(f"exit code {codes[-1] if codes else 1}, {time.monotonic() - start:.1f} s")
        root.removeHandler(handler)
        root.setLevel(level)
        sys.stderr = before
        messages.finish(failed=not codes or codes[-1] != 0)
        if log is not None:
            log.close()
