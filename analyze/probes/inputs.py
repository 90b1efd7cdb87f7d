"""What a probe is fitted on: features of a store, or the tokens that it holds because they were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.reading.extending import extended

if TYPE_CHECKING:
    from analyze.probes.banks import Read

BLOCKS = ("block1", "block2", "block3", "block4")
"""Class tokens of the four blocks that stores may hold, the first of them to the last of the model."""

TOKENS: Mapping[str, tuple[str, ...]] = {
    "class": ("token_class",),
    "class+mean": ("token_class", "token_mean"),
    **dict.fromkeys(BLOCKS, ("block_class",)),
}
"""Choice of ``--features`` -> the arrays that stand side by side."""


def arrays_of(features: str) -> tuple[str, ...]:
    """Return the arrays of a store that a choice of features reads."""
    return TOKENS.get(features, ("features",))


def part_of(features: str) -> str:
    """Return what a choice of features is called by ``extract --arrays``."""
    return "blocks" if features in BLOCKS else "tokens"


def why_not(store: Any, features: str) -> str:
    """Return why a store has nothing that a probe could be fitted on, as a clause; empty where it has."""
    if all(store.has(name) for name in arrays_of(features)):
        return ""
    if features not in TOKENS:
        return "the store holds no features"
    if store.kind != "predictions":
        return "the bank of a reference holds no tokens: store the training set with another role, as predictions"
    return f"the store holds no tokens: 'extract --arrays {part_of(features)}' stores those of vision transformers"


def reader_of(store: Any, features: str) -> Read:
    """Return a function that reads rows of what a probe is fitted on, (b, D) in the store's own type."""
    names = arrays_of(features)

    def read(start: int, stop: int) -> NDArray[np.floating]:
        if features in BLOCKS:
            block: NDArray[np.floating] = store.read("block_class", start, stop)[:, BLOCKS.index(features)]
            return block
        parts = [store.read(name, start, stop) for name in names]
        rows: NDArray[np.floating] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return rows

    return read


def plainest(stores: Sequence[Any]) -> Any:
    """Return the store to read among several that have what is needed: one that extends no other, the newest of these.

    So a probe stays the same store when stores with more arrays are made later.
    """
    there = {store.identity for store in stores}
    plain = [store for store in stores if not extended([store]) & there]
    return max(plain or stores, key=lambda store: str(store.written))
