"""A timm model in, its final affine layer out: found by structure, kept if it gives the logits back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from extract.models.base import AFFINE_TOLERANCE


@dataclass(frozen=True)
class Part:
    """One of the layers whose outputs, times ``factor``, sum up to the logits."""

    layer: nn.Module
    factor: float
    group: int = 0
    """Parts of one group look at different features side by side; groups look at the same ones."""


@dataclass(frozen=True)
class AffineHead:
    """How features are taken from a model, and the layer that turns them into logits.

    Attributes
    ----------
    tapped
        Layers whose inputs, side by side, are the features; empty: the model's own ``pre_logits``.
    weight, bias
        (C, D) and (C,) float32.
    residual
        Largest deviation from the model's logits, as a fraction of their range.
    """

    tapped: tuple[nn.Module, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    residual: float

    @property
    def affine(self) -> bool:
        """Whether features and head give the logits back."""
        return self.residual <= AFFINE_TOLERANCE


def has_classifier(model: nn.Module) -> bool:
    """Say whether the model ends in a classifier at all."""
    return int(getattr(model, "num_classes", 0) or 0) > 0 and hasattr(model, "get_classifier")


def parts_of(model: Any) -> list[Part]:
    """Return the layers that ``model.get_classifier()`` consists of, with the factor each enters the logits
    by.

    Two heads are averaged (distilled models); a list of heads is averaged (CrossViT) or summed with the
    softmax of the model's own ``weights`` (EfficientViM); a whole head module stands for its ``fc``.
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


def _input_width(layer: nn.Module) -> int | None:
    for module in layer.modules():
        for name in ("in_features", "num_features", "in_channels"):
            width = getattr(module, name, None)
            if isinstance(width, int):
                return width
    return None


def affine_map(layer: nn.Module) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (C, D) weight and (C,) bias of a layer, taking for granted that it is affine.

    Linear layers and 1x1 convolutions are read; anything else is asked, in float64, for its value at zero and
    at every unit vector.
    """
    weight = getattr(layer, "weight", None)
    if isinstance(layer, (nn.Linear, nn.Conv2d)) and weight is not None and weight.flatten(1).shape[0]:
        matrix = layer.weight.detach().double().flatten(1).cpu().numpy()
        shift = (
            layer.bias.detach().double().cpu().numpy() if layer.bias is not None else np.zeros(len(matrix))
        )
        return matrix, shift
    width = _input_width(layer)
    if width is None:
        raise ValueError(f"{type(layer).__name__} does not tell the width of its input")
    double = copy.deepcopy(layer).double().cpu().eval()
    zero = double(torch.zeros(1, width, dtype=torch.float64))
    unit = double(torch.eye(width, dtype=torch.float64)) - zero
    return unit.T.detach().numpy(), zero[0].detach().numpy()


@contextmanager
def tapping(layers: Sequence[nn.Module]) -> Iterator[dict[int, torch.Tensor]]:
    """Collect, by position, what each layer is given while the context is open."""
    seen: dict[int, torch.Tensor] = {}

    def keeper(position: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[position] = inputs[0].flatten(1)

        return keep

    handles = [layer.register_forward_pre_hook(keeper(position)) for position, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def features_and_logits(
    model: Any, body: Any, tapped: Sequence[nn.Module]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, D) features and (B, C) logits from what ``forward_features`` gave."""
    if not tapped:
        return model.forward_head(body, pre_logits=True), model.forward_head(body)
    with tapping(tapped) as seen:
        logits = model.forward_head(body)
    return torch.cat([seen[position] for position in range(len(tapped))], dim=1), logits


def deviation(
    features: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return what `residual` does, in float32, on the device and without waiting for it."""
    span = (logits.max() - logits.min()).clamp_min(torch.finfo(torch.float32).tiny)
    return (torch.addmm(bias, features, weight.T) - logits).abs().max() / span


def residual(features: torch.Tensor, logits: torch.Tensor, weight: NDArray[Any], bias: NDArray[Any]) -> float:
    """Return the largest deviation of ``features @ weight.T + bias`` from logits, as a fraction of their
    range.
    """
    if features.ndim != 2 or features.shape[1] != weight.shape[1] or logits.shape[1:] != bias.shape:
        return float("inf")
    f, y = features.detach().double().cpu().numpy(), logits.detach().double().cpu().numpy()
    span = float(y.max() - y.min())
    deviation = float(np.abs(f @ weight.T.astype(np.float64) + bias - y).max())
    return deviation / span if span else deviation


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
        tried.append(_head((), *found, features, logits))
    if not any(head.affine for head in tried) and len(parts) == 1:
        linear = [module for module in parts[0].layer.modules() if isinstance(module, nn.Linear)]
        if linear and linear[-1] is not parts[0].layer:
            tapped: tuple[nn.Module, ...] = (linear[-1],)
            tried.append(_head(tapped, *affine_map(linear[-1]), *features_and_logits(model, body, tapped)))
    if not any(head.affine for head in tried) and len(parts) > 1:
        tapped = tuple(part.layer for part in parts)
        tried.append(_head(tapped, *_side_by_side(parts), *features_and_logits(model, body, tapped)))
    for head in tried:
        if head.affine:
            return head
    if tried:
        return tried[0]
    # Nothing to show for a weight: the logits stay the truth.
    empty = np.zeros((logits.shape[1], features.shape[1]), dtype=np.float32)
    return AffineHead((), empty, np.zeros(logits.shape[1], dtype=np.float32), float("inf"))


def _head(
    tapped: tuple[nn.Module, ...],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    features: torch.Tensor,
    logits: torch.Tensor,
) -> AffineHead:
    single = weight.astype(np.float32), bias.astype(np.float32)
    return AffineHead(tapped, *single, residual(features, logits, *single))
