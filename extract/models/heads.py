"""Final affine layers: read or probed from a layer, and compared with the logits that they must give back."""

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
        shift = layer.bias.detach().double().cpu().numpy() if layer.bias is not None else np.zeros(len(matrix))
        return matrix, shift
    width = _input_width(layer)
    if width is None:
        raise ValueError(f"{type(layer).__name__} does not have the width of its input")
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


def deviation(features: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return what `residual` does, in float32, on the device and without waiting for it."""
    span = (logits.max() - logits.min()).clamp_min(torch.finfo(torch.float32).tiny)
    return (torch.addmm(bias, features, weight.T) - logits).abs().max() / span


def residual(features: torch.Tensor, logits: torch.Tensor, weight: NDArray[Any], bias: NDArray[Any]) -> float:
    """Return the largest deviation of ``features @ weight.T + bias`` from logits, as a fraction of their
    range; NaN where a logit is not a number.
    """
    if features.ndim != 2 or features.shape[1] != weight.shape[1] or logits.shape[1:] != bias.shape:
        return float("inf")
    f, y = features.detach().double().cpu().numpy(), logits.detach().double().cpu().numpy()
    if not np.isfinite(y).all():
        return float("nan")
    span = float(y.max() - y.min())
    deviation = float(np.abs(f @ weight.T.astype(np.float64) + bias - y).max())
    return deviation / span if span else deviation


def checked_head(
    tapped: tuple[nn.Module, ...],
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    features: torch.Tensor,
    logits: torch.Tensor,
) -> AffineHead:
    """Return a head in float32, with its residual on a batch; ``features`` are (B, D), ``logits`` (B, C)."""
    single = weight.astype(np.float32), bias.astype(np.float32)
    return AffineHead(tapped, *single, residual(features, logits, *single))
