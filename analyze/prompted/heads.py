"""Text heads of prompt sets taken together, or of some of their templates, from stored heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.kinds.heads import HeadStore


@dataclass(frozen=True, eq=False)
class TextHead:
    """A zero-shot classifier: ``scale * unit features @ weight.T + bias``.

    Attributes
    ----------
    weight
        (C, D) float32; unit rows, shorter ones where logits of templates are averaged.
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
        out: NDArray[np.float32] = np.float32(self.scale) * (unit_rows(features) @ self.weight.T) + self.bias
        return out


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows at unit length."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    rows: NDArray[np.float32] = features / np.maximum(norms, np.float32(1e-12))
    return rows


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
    if len(heads) == 1:
        return _like(heads, np.asarray(heads[0].weight, np.float32))
    return _like(heads, _unit(np.sum([np.asarray(head.text_sum, np.float64) for head in heads], axis=0)))


def of_templates(
    heads: Sequence[HeadStore], texts: NDArray[Any], weights: NDArray[np.float64] | None = None
) -> TextHead:
    """Return the head of some templates.

    Parameters
    ----------
    heads
        That the templates are of.
    texts
        (P, C, D) unit embeddings of the templates.
    weights
        (P,) summing to 1: the logits are the mean of the templates' logits with these weights. None: each class has
        the mean of its embeddings at unit length, as the model's own head.
    """
    total = np.zeros(texts.shape[1:])
    for number, template in enumerate(texts):
        total += template.astype(np.float64) * (1.0 if weights is None else weights[number])
    return _like(heads, _unit(total) if weights is None else total.astype(np.float32))


def _like(heads: Sequence[HeadStore], weight: NDArray[np.float32]) -> TextHead:
    first = heads[0]
    scale = float(first.logit_scale if first.logit_scale is not None else 1.0)
    return TextHead(weight, np.asarray(first.bias, np.float32), scale)


def _unit(total: NDArray[np.float64]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
    return rows


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


def check_templates(heads: Sequence[HeadStore]) -> None:
    """Raise UserError where single templates of heads cannot be read."""
    for head in heads:
        if not head.has("text_embeddings"):
            raise UserError(
                f"head {head.prompt_set} of {head.model.id} holds no embeddings of single templates:"
                " 'extract --arrays texts' stores them"
            )
        if not head.templates:
            raise UserError(f"the prompt set {head.prompt_set} has texts of its own for each class, no templates")
