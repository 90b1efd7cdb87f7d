"""Stored image embeddings and stored text heads in, logits of any prompt set out: no model is run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.reading.sources import Source, sources_of
from cache_schema.format.centred import decode, encode, kept_classes
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import StoreNotFoundError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.kinds.heads import HeadStore
    from cache_schema.reading.store import PredictionStore

UNION = "+"
"""Joins the names of prompt sets whose templates are taken together: ``photo-1+openai-7``."""


@dataclass(frozen=True, eq=False)
class TextHead:
    """A zero-shot classifier: ``scale * unit features @ weight.T + bias``.

    Attributes
    ----------
    weight
        (C, D) float32, unit rows.
    bias
        (C,) float32.
    scale
        Exponentiated logit scale.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    scale: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, C) logits of (n, D) unnormalised embeddings."""
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / np.maximum(norms, np.float32(1e-12))
        out: NDArray[np.float32] = np.float32(self.scale) * (unit @ self.weight.T) + self.bias
        return out


def union(heads: Sequence[HeadStore]) -> TextHead:
    """Return the head of several prompt sets taken together.

    Each set's head keeps, per class, the sum of its unit text embeddings; the sums are added and normalised, which is
    what the model's own head over all these templates would be (a template in two sets counts twice).

    Raises
    ------
    UserError
        A head was stored without its sums, or the heads do not go together.
    """
    check_union(heads)
    first = heads[0]
    if len(heads) == 1:
        weight = np.asarray(first.weight, np.float32)
    else:
        total = np.sum([np.asarray(head.text_sum, np.float64) for head in heads], axis=0)
        weight = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
    return TextHead(
        weight,
        np.asarray(first.bias, np.float32),
        float(first.logit_scale if first.logit_scale is not None else 1.0),
    )


def check_union(heads: Sequence[HeadStore]) -> None:
    """Raise UserError where heads cannot be taken together; reads no weights."""
    first = heads[0]
    for head in heads:
        if not head.normalize_features:
            raise UserError(f"{head.model.id} has a classifier of its own: prompts do not change it")
        if list(head.class_names) != list(first.class_names):
            raise UserError(f"the heads {first.prompt_set} and {head.prompt_set} of {head.model.id} name other classes")
        if len(heads) > 1 and not head.has("text_sum"):
            raise UserError(f"head {head.prompt_set} of {head.model.id} was stored without the sums that a union needs")


@dataclass(eq=False)
class PromptedStore:
    """A prediction store seen through another head: reads like one, its logits are computed block by block."""

    store: PredictionStore
    heads: Sequence[HeadStore]
    kind: str = "predictions"
    logits_kind: str = "logits"
    _last: tuple[int, int | None, Any] = field(default=(-1, -1, None), repr=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.store)

    @property
    def model(self) -> ModelCard:
        """The model's card."""
        return self.store.model

    @property
    def dataset(self) -> DatasetCard:
        """The dataset's card."""
        return self.store.dataset

    @property
    def record(self) -> dict[str, Any]:
        """The store's record, under this prompt set."""
        return {**self.store.record, "prompt_set": UNION.join(head.prompt_set for head in self.heads)}

    def recorded(self, name: str) -> str:
        """Return a text of the record, empty if there is none."""
        value = self.record.get(name)
        return value if isinstance(value, str) else ""

    @cached_property
    def head(self) -> TextHead:
        """The head, or that of several prompt sets taken together."""
        return union(self.heads)

    @cached_property
    def digest(self) -> str:
        """Of the embeddings' store and the head together."""
        of_heads = hashlib.sha256("".join(head.digest for head in self.heads).encode()).hexdigest()
        return hashlib.sha256(f"{self.store.digest}{of_heads}".encode()).hexdigest()

    @property
    def has_logits(self) -> bool:
        """Always."""
        return True

    @property
    def n_classes(self) -> int:
        """C."""
        return self.heads[0].n_classes

    @property
    def labels(self) -> NDArray[np.int32]:
        """Labels (n,)."""
        return self.store.labels

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which rows count (n,)."""
        return self.store.valid

    @property
    def image_ids(self) -> list[str]:
        """Names of the images."""
        return self.store.image_ids

    @property
    def metadata(self) -> dict[str, NDArray[Any]]:
        """Per-image columns."""
        return self.store.metadata

    @cached_property
    def _members(self) -> NDArray[np.int64] | None:
        return kept_classes(self.dataset.class_mask, self.dataset.class_map)

    def _block(self, start: int, stop: int | None) -> Any:
        if self._last[:2] != (start, stop):
            logits = self.head.logits(self.store.features(start, stop))
            self._last = (start, stop, encode(logits, self._members, first_row=start))
        return self._last[2]

    def centred_logits(self, start: int = 0, stop: int | None = None) -> NDArray[np.float16]:
        """Return rows of centred logits, (b, C) float16, as a store of this head would hold them."""
        logits: NDArray[np.float16] = self._block(start, stop).logits
        return logits

    def logit_centers(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the centres of rows, (b,) float32."""
        centers: NDArray[np.float32] = self._block(start, stop).centers
        return centers

    def logits(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows of logits, (b, C) float32."""
        return decode(self.centred_logits(start, stop), self.logit_centers(start, stop))

    def keep_logits(self, at_most: int) -> int:
        """Keep nothing, 0 bytes: a block is a product of features and head, had again when it is asked for."""
        return 0

    def release(self) -> None:
        """Let go of what was read and computed; it is had again when it is asked for."""
        self._last = (-1, -1, None)
        self.__dict__.pop("head", None)
        self.store.release()


def prompt_sets(cache: Cache) -> list[str]:
    """Return the names of all prompt sets that the cache has heads of, sorted."""
    return sorted({str(head.details["prompt_set"]) for head in cache.stores("head") if head.details["prompt_set"]})


def prompted_sources(cache: Cache, name: str) -> tuple[list[Source], list[tuple[str, str, str]]]:
    """Return a cache's zero-shot sources under a prompt set, and (model, dataset, reason) of those that have none.

    Parameters
    ----------
    cache
        With embeddings and heads.
    name
        A prompt set, or several joined by ``+``.

    Raises
    ------
    UserError
        No head of that name is in the cache.
    """
    parts = name.split(UNION)
    known = prompt_sets(cache)
    for part in parts:
        if part not in known:
            raise UserError(
                f"no head of the prompt set {part!r} in this cache{nearest(part, known)}; there are"
                f" {', '.join(known) or 'none'} ('extract --prompts SET' keeps more)"
            )
    sources, missing = [], []
    for source in sources_of(cache):
        card = source.store.model
        if card.head_kind != "zero-shot" or source.is_summary:
            continue
        if not source.store.has_features:
            missing.append((source.model, source.dataset, "its store holds no embeddings"))
            continue
        try:
            heads = [cache.head(source.model, source.store.dataset.class_space, part) for part in parts]
            check_union(heads)
        except (StoreNotFoundError, UserError) as error:
            missing.append((source.model, source.dataset, str(error)))
            continue
        store = PromptedStore(source.store, heads)
        sources.append(Source(source.model, source.dataset, source.role, store, store.digest, {}))
    return sources, missing
