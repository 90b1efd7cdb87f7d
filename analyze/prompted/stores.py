"""Stored image embeddings and stored text heads in, logits of any prompts out: no model is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.prompted.heads import TextHead, of_templates, union, unit_rows
from analyze.prompted.templates import ALL_TEMPLATES, TemplateChoice
from analyze.prompted.zpe import mean_row, softmax, template_scores
from cache_schema.format.centred import decode, encode, kept_classes
from cache_schema.format.records import DatasetCard, ModelCard

if TYPE_CHECKING:
    from cache_schema.reading.kinds.heads import HeadStore
    from cache_schema.reading.kinds.references import ReferenceStore
    from cache_schema.reading.store import PredictionStore

UNION = "+"
"""Joins the names of prompt sets whose templates are taken together: ``photo-1+openai-7``."""

BLOCK_ROWS = 8192


@dataclass(eq=False)
class Pretraining:
    """The set whose mean logits ZPE subtracts: a reference or prediction store of the same model."""

    store: PredictionStore | ReferenceStore

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """(D,) mean of its features, each at unit length."""
        if self.store.kind != "reference":
            return mean_row(unit_blocks(self.store))
        sums: Any = self.store
        total = sums.feature_sum if sums.unit_feature_sum is None else sums.unit_feature_sum
        return np.asarray(total.sum(axis=0) / sums.n, np.float64)


def unit_blocks(store: Any) -> Iterator[NDArray[np.float32]]:
    """Yield the features of a prediction store's valid rows at unit length."""
    for start in range(0, len(store), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(store))
        yield unit_rows(store.features(start, stop)[store.valid[start:stop]])


@dataclass(eq=False)
class PromptedStore:
    """A prediction store seen through another head: reads like one, its logits are computed block by block.

    Attributes
    ----------
    store, heads
        Embeddings of images, and the heads of the prompt sets that are taken together.
    choice, numbers
        Which of their templates count and how; their numbers, counted over the sets in order.
    pretraining
        What ZPE subtracts; None for nothing.
    kind, logits_kind
        As of a prediction store.
    """

    store: PredictionStore
    heads: Sequence[HeadStore]
    choice: TemplateChoice = ALL_TEMPLATES
    numbers: Sequence[int] = ()
    pretraining: Pretraining | None = None
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
        """The store's record, under these prompts."""
        name = UNION.join(head.prompt_set for head in self.heads)
        if self._from_templates:
            name = self.choice.named(name, self.numbers, self._n_templates)
        return {**self.store.record, "prompt_set": name}

    @property
    def _n_templates(self) -> int:
        return sum(head.n_templates for head in self.heads)

    @property
    def _from_templates(self) -> bool:
        """Whether single templates are read: not where all count the same, which is what heads hold."""
        return self.choice.needs_texts and (self.choice.weights != "head" or len(self.numbers) < self._n_templates)

    def recorded(self, name: str) -> str:
        """Return a text of the record, empty if there is none."""
        value = self.record.get(name)
        return value if isinstance(value, str) else ""

    @cached_property
    def head(self) -> TextHead:
        """The head: of a prompt set, of several taken together, or of chosen templates."""
        if not self._from_templates:
            return union(self.heads)
        texts = self._texts()
        if self.choice.weights == "head":
            return of_templates(self.heads, texts)
        return of_templates(self.heads, texts, self._weights_of(texts))

    def template_weights(self) -> NDArray[np.float64]:
        """Return the weights of the chosen templates, in the order of ``numbers``; they sum to 1."""
        return self._weights_of(self._texts())

    def _texts(self) -> NDArray[Any]:
        """Return (P, C, D) embeddings of the chosen templates, which count over the sets in order."""
        parts, first = [], 0
        for head in self.heads:
            mine = [number - first for number in self.numbers if first <= number < first + head.n_templates]
            parts += [head.text_embeddings(mine)] if mine else []
            first += head.n_templates
        return np.concatenate(parts)

    def _weights_of(self, texts: NDArray[Any]) -> NDArray[np.float64]:
        if self.choice.weights != "zpe":
            return np.full(len(texts), 1 / len(texts))
        scale = self.heads[0].logit_scale
        away = None if self.pretraining is None else self.pretraining.mean
        kept = texts if self._members is None else texts[:, self._members]
        scores = template_scores(lambda: unit_blocks(self.store), kept, 1.0 if scale is None else scale, away)
        return softmax(scores)

    @cached_property
    def digest(self) -> str:
        """Of the embeddings' store, the head, and how templates are taken, together."""
        of_heads = hashlib.sha256("".join(head.digest for head in self.heads).encode()).hexdigest()
        taken = ""
        if self._from_templates:
            away = "" if self.pretraining is None else self.pretraining.store.digest
            taken = json.dumps([list(self.numbers), self.choice.weights, away])
        return hashlib.sha256(f"{self.store.digest}{of_heads}{taken}".encode()).hexdigest()

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
