"""Encoders of transformers without a head: the class token after the last layer norm, or the pooled features."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn


class Encoder(NamedTuple):
    """How an architecture is run.

    Attributes
    ----------
    name
        Class of transformers that is built.
    token
        Whether its features are the class token after the last layer norm; else what the class pools.
    arguments
        Of its constructor.
    """

    name: str
    token: bool = True
    arguments: tuple[tuple[str, Any], ...] = ()


ENCODERS = {
    "CLIPVisionModel": Encoder("CLIPVisionModel", token=False),
    "ConvNextModel": Encoder("ConvNextModel", token=False),
    "ConvNextV2Model": Encoder("ConvNextV2Model", token=False),
    "DINOv3ConvNextModel": Encoder("DINOv3ConvNextModel", token=False),
    "DINOv3ViTModel": Encoder("DINOv3ViTModel"),
    "Dinov2Model": Encoder("Dinov2Model"),
    "Dinov2WithRegistersModel": Encoder("Dinov2WithRegistersModel"),
    "ResNetModel": Encoder("ResNetModel", token=False),
    "SiglipVisionModel": Encoder("SiglipVisionModel", token=False),
    "ViTMAEForPreTraining": Encoder("ViTMAEModel"),
    "ViTMAEModel": Encoder("ViTMAEModel"),
    "ViTMSNModel": Encoder("ViTMSNModel"),
    "ViTModel": Encoder("ViTModel", arguments=(("add_pooling_layer", False),)),
}
"""Class that weights were saved from -> how features come out of it. DINO and DINOv2 are evaluated on the class token;
a ViT's own pooling layer is trained with a head, and is left out."""


class FeatureModule(nn.Module):
    """An encoder that gives (B, D) features of (B, 3, H, W) images."""

    def __init__(self, encoder: Any, *, token: bool) -> None:
        super().__init__()
        self.encoder, self._token = encoder, token
        self._patches = 0
        if type(encoder).__name__ == "ViTMAEModel":  # drops three quarters of the patches at random otherwise
            encoder.config.mask_ratio = encoder.embeddings.config.mask_ratio = 0.0
            self._patches = int(encoder.embeddings.patch_embeddings.num_patches)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        more = {}
        if self._patches:  # the order of the patches
            more["noise"] = torch.arange(self._patches, device=images.device).expand(len(images), -1) / self._patches
        found = self.encoder(pixel_values=images, **more)
        features: torch.Tensor = found.last_hidden_state[:, 0] if self._token else found.pooler_output.flatten(1)
        return features
