"""A timm model in, its final affine layer out: found by structure, kept if it gives the logits back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from extract.models.heads import AffineHead, affine_map, checked_head, tapping


@dataclass(frozen=True)
class Part:
    """One of the layers whose outputs, times ``factor``, sum up to the logits."""

    layer: nn.Module
    factor: float
    group: int = 0
    """Parts of one group look at different features side by side; groups look at the same ones."""


def has_classifier(model: nn.Module) -> bool:
    """Return whether the model ends in a classifier at all."""
    return int(getattr(model, "num_classes", 0) or 0) > 0 and hasattr(model, "get_classifier")


def parts_of(model: Any) -> list[Part]:
    """Return the layers that ``model.get_classifier()`` consists of, with the factor each enters the logits
    by.

    Two heads are averaged (distilled models); a list of heads is averaged (CrossViT) or summed with the
    softmax of the model's own ``weights`` (EfficientViM); of a whole head module its ``fc`` is taken.
    """
    classifier = model.get_classifier()
    if not isinstance(classifier, (tuple, list)):
        return _branches(classifier, getattr(model, "weights", None))
    named = (getattr(model, "weights", None), getattr(model, "weights_dist", None))
    parts = []
    for index, head in enumerate(classifier):
        mixing = named[index] if index < len(named) else None
        parts += [Part(part.layer, part.factor / len(classifier), index) for part in _branches(head, mixing)]
    return parts


def _branches(head: nn.Module, mixing: Any) -> list[Part]:
    if not isinstance(head, nn.ModuleList):
        inner = getattr(head, "fc", None)
        return [Part(inner if isinstance(inner, nn.Module) else head, 1.0)]
    if isinstance(mixing, torch.Tensor) and len(mixing) == len(head):
        shares = mixing.detach().double().softmax(-1).tolist()
    else:
        shares = [1 / len(head)] * len(head)
    return [Part(layer, share) for layer, share in zip(head, shares, strict=True)]


def features_and_logits(model: Any, body: Any, tapped: Sequence[nn.Module]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, D) features and (B, C) logits from what ``forward_features`` gave."""
    if not tapped:
        return model.forward_head(body, pre_logits=True), model.forward_head(body)
    with tapping(tapped) as seen:
        logits = model.forward_head(body)
    return torch.cat([seen[position] for position in range(len(tapped))], dim=1), logits


def _side_by_side(parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    maps = [(part.factor, *affine_map(part.layer)) for part in parts]
    weight = np.concatenate([factor * matrix for factor, matrix, _ in maps], axis=1)
    return weight, np.sum([factor * shift for factor, _, shift in maps], axis=0)


def _pooled(parts: Sequence[Part], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the map of ``pre_logits`` features, or None where the widths do not add up."""
    groups = sorted({part.group for part in parts})
    maps = [_side_by_side([part for part in parts if part.group == group]) for group in groups]
    if any(weight.shape[1] != width for weight, _ in maps):
        return None
    return np.sum([weight for weight, _ in maps], axis=0), np.sum([shift for _, shift in maps], axis=0)


def find_head(model: Any, body: Any) -> AffineHead:
    """Return the head of a timm model, checked on what ``forward_features`` gave for a batch.

    Tried in turn: the model's own ``pre_logits`` features with its classifier; the input of the innermost
    linear layer of a composite classifier (an MLP head); the inputs of all classifier layers side by side
    (two heads that look at different tokens). The first that gives the logits back is taken. If none does
    (VOLO adds a maximum over tokens), the features are ``pre_logits``, the head is its classifier, and it is
    not affine.

    Parameters
    ----------
    model
        In evaluation mode, with a classifier.
    body
        float32.
    """
    parts = parts_of(model)
    features, logits = features_and_logits(model, body, ())
    tried: list[AffineHead] = []
    if (found := _pooled(parts, features.shape[1])) is not None:
        tried.append(checked_head((), *found, features, logits))
    if not any(head.affine for head in tried) and len(parts) == 1:
        linear = [module for module in parts[0].layer.modules() if isinstance(module, nn.Linear)]
        if linear and linear[-1] is not parts[0].layer:
            tapped: tuple[nn.Module, ...] = (linear[-1],)
            tried.append(checked_head(tapped, *affine_map(linear[-1]), *features_and_logits(model, body, tapped)))
    if not any(head.affine for head in tried) and len(parts) > 1:
        tapped = tuple(part.layer for part in parts)
        tried.append(checked_head(tapped, *_side_by_side(parts), *features_and_logits(model, body, tapped)))
    for head in tried:
        if head.affine:
            return head
    if tried:
        return tried[0]
    # Nothing to show for a weight: the logits stay the truth.
    empty = np.zeros((logits.shape[1], features.shape[1]), dtype=np.float32)
    return AffineHead((), empty, np.zeros(logits.shape[1], dtype=np.float32), float("inf"))
