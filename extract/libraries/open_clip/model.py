"""open_clip models: the unnormalised image embedding, and a zero-shot head for any class space and prompt set."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError
from extract.libraries.open_clip import configs
from extract.libraries.open_clip.inner import patch_embeddings
from extract.libraries.open_clip.projection import float32_projection
from extract.models.base import HeadUnavailable, Outputs, Prepared, Preprocessing
from extract.models.inner import class_and_mean, class_tokens_of, four_blocks, inputs_of, outputs_of
from extract.models.pixels import Normalizer, body_precision, check_precision, to_channels_last, true_float32
from extract.models.remote_code import RemoteCodeError
from extract.models.text_cache import TextCache
from extract.models.zero_shot import ZeroShotModel

__all__ = ["OpenClipModel"]


class OpenClipModel(ZeroShotModel):
    """A CLIP-like model in evaluation mode; its logits come from the embedding and a head, see `head`."""

    def __init__(self, prepared: Prepared, source: configs.Source, module: Any, device: str, precision: str) -> None:
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        size = module.visual.image_size
        built = (size, size) if isinstance(size, int) else tuple(size)
        if built != prepared.preprocessing.geometry.output_size:
            raise UserError(
                f"{prepared.spec.id}: the image tower takes {built}, but images would be made"
                f" {prepared.preprocessing.geometry.output_size}; remove input_size="
            )
        self.module: Any = module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module.visual)
        # CoCa's own default is to normalise.
        self._tower = functools.partial(self.module.encode_image, normalize=False)
        self.feature_width = int(source.model["embed_dim"])
        self.card = replace(
            prepared.card,
            feature_width=self.feature_width,
            parameters=sum(parameter.numel() for parameter in module.visual.parameters()),
            logit_scale=module.logit_scale.detach().exp().item(),
            logit_bias=None if module.logit_bias is None else module.logit_bias.detach().item(),
        )
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        self._project: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float
        # Last of what may run out of memory: it changes the module, and can be done once.
        if self.precision != "fp32":
            self._project = float32_projection(self.module.visual)
        self._source, self._spec = source, prepared.spec
        tower = json.dumps(
            [source.model, configs.tokenizer_id(source), prepared.spec.options.get("quick_gelu")],
            sort_keys=True,
        )
        self._texts = TextCache("" if prepared.weights is None else self.card.weights_digest, tower)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the projected image embedding, not normalised; see `LoadedModel.forward`."""
        with body_precision(self.device, self.precision):
            pooled: torch.Tensor = self._tower(self._normalize(pixels))
        return Outputs(self._project(pooled), None)

    @torch.inference_mode()
    def forward_with(self, pixels: torch.Tensor, arrays: Sequence[str]) -> Outputs:
        """Return the image embedding and what further arrays are made of; see `LoadedModel.forward_with`."""
        visual, parts = self.module.visual, dict[str, torch.Tensor]()
        blocks = visual.transformer.resblocks
        chosen = [blocks[i] for i in four_blocks(len(blocks))] if "blocks" in arrays else []
        with (
            body_precision(self.device, self.precision),
            inputs_of(blocks[-1]) as into_last,
            outputs_of(visual.transformer) as after_last,
            class_tokens_of(chosen, batch_first=visual.transformer.batch_first) as class_tokens,
        ):
            pooled: torch.Tensor = self.module.encode_image(self._normalize(pixels), normalize=False)
            if "patches" in arrays:
                parts["patches"] = patch_embeddings(visual, into_last[0], self._project)
            if "tokens" in arrays:
                parts |= class_and_mean(visual.ln_post(after_last[0]), 1)
            if "blocks" in arrays:
                parts["block_class"] = class_tokens()
        return Outputs(self._project(pooled), None, parts)

    def part_details(self, array: str) -> Mapping[str, Any]:
        """Return how an array is made; see `LoadedModel.part_details`."""
        if array == "blocks":
            depth = len(self.module.visual.transformer.resblocks)
            return {"numbers": four_blocks(depth), "of": depth}
        return {"layer": "ln_post"} if array == "tokens" else {}

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            return configs.tokenizer_of(self._source, self._spec)
        except RemoteCodeError as error:
            raise HeadUnavailable(str(error)) from None
        except ImportError as error:
            raise HeadUnavailable(
                f"{self.card.id}: its tokenizer needs {error.name}: {install_line('extract')}"
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise HeadUnavailable(
                f"{self.card.id}: its tokenizer is neither in the hub cache nor to be had; warm the hub "
                "cache (HF_HOME), or use"
                f" local-dir:FOLDER with the tokenizer's files in it ({reason})"
            ) from error

    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        """Return unit text embeddings, computed in float32; see `ZeroShotModel._encoded`."""
        tokens = self._tokenizer(texts).to(self.device)
        with true_float32(self.device):
            encoded: NDArray[np.float32] = self.module.encode_text(tokens, normalize=True).float().cpu().numpy()
        return encoded
