"""Audit of a cache together with its table: other images for some models, the same weights, copies of ID images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from analyze.audit.findings import Finding, listed
from analyze.evaluate.originals import ORIGINAL, ImageNames
from analyze.reading.sources import Source, sources_of
from closerlook_common.console.terminal import counted
from closerlook_common.errors import CloserlookError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

SHARED = 0.9
"""Share of equal names and labels from which a set looks like a copy of another."""


def of_cache(cache: Cache) -> Iterator[Finding]:
    """Yield what the stores of a cache show and a table does not."""
    sources = sources_of(cache)
    yield from other_images(sources)
    yield from same_weights(cache.models())
    yield from undeclared_copies(sources)


def other_images(sources: list[Source]) -> Iterator[Finding]:
    """Yield datasets of which models have seen different images."""
    by_dataset: dict[str, dict[str, list[str]]] = {}
    for source in sources:
        images = source.store.dataset.digest or counted(len(source.store), "row")
        by_dataset.setdefault(source.dataset, {}).setdefault(images, []).append(source.model)
    for dataset, digests in sorted(by_dataset.items()):
        if len(digests) > 1:
            rare = min(digests.values(), key=len)
            yield Finding(
                "unequal-n",
                f"{dataset} is {len(digests)} different lists of images, another one for {listed(rare)}",
                "run these models again, so that all see the same images in the same order",
            )


def same_weights(cards: list[Any]) -> Iterator[Finding]:
    """Yield models whose weights are the same."""
    by_digest: dict[str, list[str]] = {}
    for card in cards:
        digest = getattr(card, "weights_digest", "")
        if digest:
            by_digest.setdefault(digest, []).append(card.id)
    for models in by_digest.values():
        if len(models) > 1:
            yield Finding(
                "near-copies",
                f"{counted(len(models), 'model')} have the same weights: {listed(models)}",
                "keep one of them in statistics over models, or count them as one family",
            )


def undeclared_copies(sources: list[Source]) -> Iterator[Finding]:
    """Yield shifted sets that look like copies of the ID images and do not say which image is made from which."""
    inside = {source.dataset: source for source in sources if source.role == "id"}
    seen: set[str] = set()
    for source in sources:
        on = source.store.dataset.shift_of or (next(iter(inside)) if len(inside) == 1 else "")
        if source.role != "shift" or source.dataset in seen or on not in inside:
            continue
        seen.add(source.dataset)
        try:
            names, originals = ImageNames.of(source), ImageNames.of(inside[on])
            if names.originals is None and not names.numbers().any() and _alike(source, inside[on], names, originals):
                yield Finding(
                    "tuned-on-test",
                    f"{source.dataset} has the file names and labels of {on}: calibrators may be tested on copies of"
                    " images that they were fitted on",
                    f"give {source.dataset} the metadata column {ORIGINAL!r} (each image's original), or other names"
                    " where they are unrelated",
                )
        except (CloserlookError, OSError):
            continue  # what cannot be read has its reason in the table


def _alike(source: Source, inside: Source, names: ImageNames, originals: ImageNames) -> bool:
    mine, theirs = names.hashes(), originals.hashes()
    if mine is None or theirs is None or np.unique(theirs).size < theirs.size:
        return False
    order = np.argsort(theirs)
    place = np.minimum(np.searchsorted(theirs[order], mine), theirs.size - 1)
    known = theirs[order][place] == mine
    own, other = _labels(source), _labels(inside)[order][place]
    # As many equal labels as names prove it where labels are not all the same.
    return bool(known.mean() >= SHARED and (own == other)[known].mean() >= SHARED and np.unique(own).size > 1)


def _labels(source: Source) -> Any:
    store = source.store
    return np.asarray(store.column("label") if source.is_summary else store.labels)
