"""What a run reports while it goes: small records that cross processes, for progress and the final summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from closerlook_common.console import waiting

Kind = Literal["loading", "pass", "rows", "rates", "done", "failed", "note"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes
    ----------
    kind
        ``loading`` a model; a ``pass`` begins; ``rows`` went through; ``rates`` of a finished pass; a job is ``done``
        or ``failed``; a ``note`` to print.
    model, dataset
        Ids, empty where the event is about neither. Several models of a pass are comma-separated.
    rows
        Images times models, for ``rows``.
    text
        Reason, rates or note; for ``done``, that it was sealed before.
    """

    kind: Kind
    model: str = ""
    dataset: str = ""
    rows: int = 0
    text: str = ""


Listener = Callable[[Event], None]

TEXTS_EVERY = 1.0
"""Seconds between events about the texts of one head."""


def text_progress(notify: Listener, model: str, what: str) -> Callable[[int, int], None]:
    """Report that a text head is being made; return the function to call with templates done and templates in all."""
    notify(Event("loading", model, text=what))
    last = waiting.clock.now()

    def advance(done: int, of: int) -> None:
        nonlocal last
        now = waiting.clock.now()
        if now - last >= TEXTS_EVERY:
            last = now
            notify(Event("loading", model, text=f"{what}: {done} of {of} templates"))

    return advance
