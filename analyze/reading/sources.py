"""The stores of a cache that numbers can be computed from: one for each model and dataset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_schema.cache import Cache

LABELLED = ("id", "shift")
USED = ("id", "shift", "ood")


@dataclass(frozen=True)
class Source:
    """A store that numbers can be computed from.

    Attributes
    ----------
    model, dataset, role
        Ids and role of the cards.
    store
        A prediction store, or a summary store where there is no other.
    digest
        Of the prediction store (a summary remembers it).
    variants
        Summary stores of other class views of the same outputs, by name of the view.
    """

    model: str
    dataset: str
    role: str
    store: Any
    digest: str
    variants: dict[str, Any]

    @property
    def is_summary(self) -> bool:
        """Whether only a summary is at hand."""
        return bool(self.store.kind == "summary")

    @cached_property
    def card_key(self) -> str:
        """What of the cards a number depends on."""
        card = self.store.dataset
        model = self.store.model
        told = [card.id, card.role, card.class_mask, card.class_map, card.class_map_rule, card.distance]
        told += [card.shift_of, card.class_names, model.logit_scale, model.head_kind, self.store.kind]
        told += [
            model.group,
            model.source,
            model.family,
            model.parameters,
            model.input_size,
            model.samples_seen,
        ]
        return json.dumps(told)


def sources_of(cache: Cache) -> list[Source]:
    """Return one source per model and dataset, sorted: the prediction store, else the plain summary.

    Where several stores of one model and dataset lie in the cache, the one written last counts.
    """
    found: dict[tuple[str, str], Source] = {}
    variants: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in ("summary", "predictions"):
        for store in sorted(cache.stores(kind), key=lambda s: str(s.header["seal"]["written"])):
            card = store.header["dataset"]
            key = store.header["model"]["id"], card["id"]
            if kind == "summary" and store.details["variant"]:
                variants.setdefault(key, {})[store.details["variant"]] = store
                continue
            if kind == "predictions" and not store.has("logits"):
                continue
            digest = str(store.record.get("source_digest") or store.digest)
            found[key] = Source(*key, card["role"], store, digest, variants.setdefault(key, {}))
    return [found[key] for key in sorted(found) if found[key].role in USED]
