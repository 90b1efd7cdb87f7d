"""Stores that hold what other stores of the same model and dataset hold, and more arrays."""

from __future__ import annotations

from collections import Counter
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
    """Return the stores without those in whose place another of them can be read.

    Only headers of stores of one kind, model and dataset are read, since no other store extends them.
    """
    several = Counter(map(_pair, stores))
    gone = extended(store for store in stores if several[_pair(store)] > 1)
    return [store for store in stores if store.identity not in gone]


def _pair(store: Store) -> tuple[str, str, str]:
    return store.kind, store.model_id, store.dataset_id
