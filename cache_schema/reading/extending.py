"""Stores that hold what other stores of the same model and dataset hold, and more arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from cache_schema.reading.store import Store

S = TypeVar("S", bound=Store)


def extended(stores: Iterable[Store]) -> set[str]:
    """Return the identities of the stores in whose place others of these can be read."""
    found: set[str] = set()
    for store in stores:
        named = store.record.get("extends") or ()
        found.update([named] if isinstance(named, str) else map(str, named))
    return found


def not_extended(stores: Sequence[S]) -> list[S]:
    """Return the stores without those in whose place another of them can be read."""
    gone = extended(stores)
    return [store for store in stores if store.identity not in gone]
