"""timm classifiers: features, head and logits from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from closerlook_common.errors import UserError
from extract.libraries.timm import heads
from extract.libraries.timm.inner import why_module_has_no_tokens
from extract.models.base import Outputs, Prepared
from extract.models.classifier import ClassifierModel
from extract.models.inner import class_and_mean, class_tokens_of, four_blocks
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
        return self._outputs(self._body(pixels, self.precision))

    def _outputs(self, body: Any) -> Outputs:
        with true_float32(self.device):
            if self._affine is None:
                return Outputs(self._pooled(body), None)
            return self._checked(*heads.features_and_logits(self.module, body, self._affine.tapped))

    @torch.inference_mode()
    def forward_with(self, pixels: torch.Tensor, arrays: Sequence[str]) -> Outputs:
        """Return features, logits and what further arrays are made of; see `LoadedModel.forward_with`."""
        if reason := why_module_has_no_tokens(self.card.id, self.module):
            raise UserError(f"`arrays` {', '.join(arrays)}: {reason}")
        parts: dict[str, torch.Tensor] = {}
        chosen = [self.module.blocks[i] for i in four_blocks(len(self.module.blocks))] if "blocks" in arrays else []
        with class_tokens_of(chosen) as class_tokens:
            body = self._body(pixels, self.precision)
            if "blocks" in arrays:
                parts["block_class"] = class_tokens()
        if "tokens" in arrays:
            parts |= class_and_mean(body, int(self.module.num_prefix_tokens))
        return replace(self._outputs(body), parts=parts)

    def part_details(self, array: str) -> Mapping[str, Any]:
        """Return how an array is made; see `LoadedModel.part_details`."""
        if array == "blocks":
            depth = len(self.module.blocks)
            return {"numbers": four_blocks(depth), "of": depth}
        return {"layer": "forward_features"}
