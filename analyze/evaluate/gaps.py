"""Why a cache has no numbers of some of its datasets: roles that say nothing alone, stores without outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from analyze.reading.sources import sources_of

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


def gaps(cache: Cache) -> Iterator[str]:
    """Yield, a sentence each, why datasets of a cache have no rows in a result table at all."""
    sources = sources_of(cache)
    sets = {source.dataset: source.role for source in sources}
    outside = sorted(name for name, role in sets.items() if role == "ood")
    without = {
        store.dataset.id
        for store in cache.stores("predictions")
        if not store.has("logits") and store.dataset.role in ("id", "shift", "ood")
    }
    bare = sorted(without - set(sets))
    if bare:
        yield f"{_some(bare)}: the stores hold no logits, which every metric needs ('analyze probe' fits heads)."
    if outside and "id" not in sets.values():
        yield (
            f"{_some(outside)}: out-of-distribution (role 'ood'). Such images are taken as unlabelled and count only"
            " beside an in-distribution set (role 'id'), of which this cache has none; 'python -m cache_schema dataset"
            " CACHE DATASET --role ROLE' changes a role."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
