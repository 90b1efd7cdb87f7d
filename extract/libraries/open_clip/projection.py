"""The last step of an image tower, from pooled features to the embedding, in float32 whatever the rest runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from extract.models.pixels import true_float32

_LAST = ("head", "attnpool")
"""Where open_clip's towers of timm's models and its ResNets keep it; its own transformers have a matrix ``proj``."""


class InFloat32(nn.Module):
    """A layer that computes in float32, also where autocast is on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: torch.Tensor) -> Any:
        """Return what the layer makes of the inputs."""
        with true_float32(inputs.device):
            return self.layer(inputs.float())


def float32_projection(visual: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Take the projection of an image tower out of autocast's reach.

    Parameters
    ----------
    visual
        The tower; changed in place.

    Returns
    -------
    callable
        What is left to be done to the tower's output.
    """
    for name in _LAST:
        layer = getattr(visual, name, None)
        if isinstance(layer, nn.Module) and not isinstance(layer, InFloat32):
            setattr(visual, name, InFloat32(layer))
    matrix = getattr(visual, "proj", None)
    if not isinstance(matrix, nn.Parameter):
        return lambda pooled: pooled.float()
    visual.proj = None

    def project(pooled: torch.Tensor) -> torch.Tensor:
        with true_float32(pooled.device):
            return pooled.float() @ matrix

    return project
