"""Remarks made while a dataset is listed: what was left out or looks wrong, without stopping the reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[list[str] | None] = ContextVar("remarks", default=None)


def remark(text: str) -> None:
    """Add a line to the remarks of the dataset that is being listed; no-op outside `collected`."""
    found = _current.get()
    if found is not None and text not in found:
        found.append(text)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the remarks that are made inside the block."""
    found: list[str] = []
    token = _current.set(found)
    try:
        yield found
    finally:
        _current.reset(token)
