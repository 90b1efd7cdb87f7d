"""Print what a command is doing if it takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from closerlook_common.redaction import printable, redact

T = TypeVar("T")

AFTER_SECONDS = 2.0
"""Shorter waits print nothing."""


class Clock:
    """The time, and calls after some seconds; tests replace it."""

    def now(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function after some seconds, in another thread; return a function that cancels the call."""
        timer = threading.Timer(max(0.0, seconds), call)
        timer.daemon = True
        timer.start()
        return timer.cancel


clock = Clock()
"""Of all notices in this process."""


def _print(text: str) -> None:
    print(redact(printable(text)), file=sys.stderr, flush=True)


_active: list[WaitNotice] = []
"""Waits that have begun and not ended; the last one is what the command waits for."""


class WaitNotice:
    """Print a description of a wait once it has taken two seconds.

    A wait inside another is described in place of the outer one.

    Parameters
    ----------
    say
        Prints a line; standard error by default.
    after
        Seconds of silence.
    """

    def __init__(self, say: Callable[[str], None] | None = None, after: float | None = None) -> None:
        self._say = say or _print
        self._after = after
        self._lock = threading.Lock()
        self._number = 0
        self._cancel: Callable[[], None] | None = None

    def begin(self, what: str, *, waited: float = 0.0) -> None:
        """Start a wait; an earlier one ends."""
        after = AFTER_SECONDS if self._after is None else self._after
        with self._lock:
            self._stop()
            self._number += 1
            number = self._number
            _active[:] = [*(one for one in _active if one is not self), self]
            self._call(after - waited, number, what)

    def end(self) -> None:
        """End the wait."""
        with self._lock:
            self._stop()
        _active[:] = [one for one in _active if one is not self]
        on_output()

    def _call(self, seconds: float, number: int, what: str) -> None:
        self._cancel = clock.call_later(seconds, lambda: self._on_timeout(number, what))

    def _stop(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _on_timeout(self, number: int, what: str) -> None:
        with self._lock:
            # The wait may have ended at this moment.
            if self._cancel is None or number != self._number:
                return
            if _active[-1:] != [self]:
                self._call(AFTER_SECONDS, number, what)
                return
        self._say(f"{what} ...")


class _Silence:
    """Print one line if a command prints nothing for two seconds while no notice describes what it waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._what = ""
        self._printed_at = 0.0
        self._cancel: Callable[[], None] | None = None

    def begin(self, what: str) -> None:
        """Start watching a command."""
        with self._lock:
            self._what, self._printed_at = what, clock.now()
            self._wait(AFTER_SECONDS)

    def end(self) -> None:
        """Stop watching."""
        with self._lock:
            self._what = ""
            if self._cancel is not None:
                self._cancel()
                self._cancel = None

    def on_output(self) -> None:
        """Start the two seconds anew: something was printed."""
        self._printed_at = clock.now()

    def _wait(self, seconds: float) -> None:
        self._cancel = clock.call_later(seconds, self._on_timeout)

    def _on_timeout(self) -> None:
        with self._lock:
            what, left = self._what, self._printed_at + AFTER_SECONDS - clock.now()
            if not what:
                return
            if _active or left > 0:
                self._wait(AFTER_SECONDS if _active else left)
                return
            self._cancel = None
        _print(f"{what} ...")


_silence = _Silence()
on_output = _silence.on_output
"""Called whenever a command prints something."""

_commands = 0
"""Number of running commands: the library prints nothing in other programs."""


@contextmanager
def printing(what: str = "") -> Iterator[None]:
    """Let `waiting` print while a command runs; print ``what`` once if nothing else is printed for two seconds."""
    global _commands
    _commands += 1
    if what:
        _silence.begin(what)
    try:
        yield
    finally:
        _commands -= 1
        if what:
            _silence.end()


def is_printing() -> bool:
    """Return whether a command is running."""
    return _commands > 0


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print ``what`` if the body takes longer than two seconds and a command is running."""
    if not is_printing():
        yield
        return
    notice = WaitNotice()
    notice.begin(what)
    try:
        yield
    finally:
        notice.end()


def waiting_for(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield items; print ``what`` once if they take longer than two seconds and a command is running."""
    with waiting(what):
        yield from items


class Accumulated:
    """Many short waits for one thing: print it once, when they have taken two seconds together."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._notice = WaitNotice(self._say)
        self._spent, self._begun, self._depth = 0.0, 0.0, 0
        self._is_waiting = self._was_printed = False

    def begin(self) -> None:
        """Start one wait; a nested one counts as part of the outer one."""
        self._depth += 1
        if self._depth == 1 and not self._was_printed and is_printing():
            self._begun, self._is_waiting = clock.now(), True
            self._notice.begin(self._what, waited=self._spent)

    def end(self) -> None:
        """End one wait."""
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self._is_waiting:
            self._spent += clock.now() - self._begun
            self._is_waiting = False
            self._notice.end()

    def _say(self, text: str) -> None:
        self._was_printed = True
        _print(text)
