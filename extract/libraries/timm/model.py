"""timm classifiers: features, head and logits from one forward pass."""

from __future__ import annotations

from typing import Any

import torch

from extract.libraries.timm import heads
from extract.models.base import Outputs, Prepared
from extract.models.classifier import ClassifierModel
from extract.models.pixels import body_precision, true_float32


def _float32(body: Any) -> Any:
    if isinstance(body, torch.Tensor):
        return body.float()
    if isinstance(body, (tuple, list)):
        return type(body)(_float32(part) for part in body)
    return body


class TimmModel(ClassifierModel):
    """A timm model in evaluation mode, its head found and checked on two images of noise."""

    def __init__(self, prepared: Prepared, module: Any, device: str, precision: str) -> None:
        noise = self._place(prepared, module, device, precision)
        self._tower = self.module.forward_features
        affine = None
        with torch.inference_mode():
            body = self._body(noise, "fp32")
            with true_float32(self.device):
                if heads.has_classifier(module):
                    affine = heads.find_head(self.module, body)
                    width = affine.weight.shape[1]
                else:
                    width = int(self._pooled(body).shape[1])
        self._adopt(prepared, module, affine, width)

    def _body(self, pixels: torch.Tensor, precision: str) -> Any:
        images = self._normalize(pixels)
        with body_precision(self.device, precision):
            return _float32(self._tower(images))

    def _pooled(self, body: Any) -> torch.Tensor:
        pooled: torch.Tensor = self.module.forward_head(body, pre_logits=True)
        return pooled.flatten(1)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return features and logits; see `LoadedModel.forward`."""
        body = self._body(pixels, self.precision)
        with true_float32(self.device):
            if self._affine is None:
                return Outputs(self._pooled(body), None)
            return self._checked(*heads.features_and_logits(self.module, body, self._affine.tapped))
