"""The stores of a cache that numbers can be computed from: one for each model and dataset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cache_schema.format.model_names.lineages import card_lineage
from cache_schema.writing.dataset_roles import require_roles

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

LABELLED = ("id", "shift")
USED = ("id", "shift", "ood")


@dataclass(frozen=True)
class Source:
    """A store that numbers can be computed from.

    Attributes
    ----------
    model, dataset, role
        Ids of the cards, and the role that the dataset has in the cache.
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
        """What a number depends on besides the outputs: of the cards, and of summaries which ones they are."""
        card = self.store.dataset
        model = self.store.model
        parts = [card.id, card.role, card.class_mask, card.class_map, card.class_map_rule, card.distance]
        parts += [card.shift_of, card.class_names, model.logit_scale, model.head_kind, self.store.kind]
        parts += [
            model.group,
            model.source,
            model.family,
            model.parameters,
            model.input_size,
            model.samples_seen,
            card_lineage(model),
        ]
        parts.append(self.store.recorded("prompt_set"))
        if self.is_summary:
            # The same outputs can be summarized again, with other options or further class views.
            parts += [self.store.digest, *sorted(store.digest for store in self.variants.values())]
        return json.dumps(parts)


def sources_of(cache: Cache) -> list[Source]:
    """Return one source per model and dataset, sorted: the prediction store, else the plain summary.

    Where several stores of one model and dataset lie in the cache, the one written last counts.

    Raises
    ------
    UserError
        Where the role of a dataset is not clear.
    """
    require_roles(cache)
    found: dict[tuple[str, str], Source] = {}
    variants: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in ("summary", "predictions"):
        for store in sorted(cache.stores(kind), key=lambda s: s.written):
            key = store.model_id, store.dataset_id
            if kind == "summary" and store.details["variant"]:
                variants.setdefault(key, {})[store.details["variant"]] = store
                continue
            if kind == "predictions" and not store.has("logits"):
                continue
            digest = store.recorded("source_digest") or store.digest
            found[key] = Source(*key, store.dataset.role, store, digest, variants.setdefault(key, {}))
    return [found[key] for key in sorted(found) if found[key].role in USED]
