"""Zero-shot models of transformers: the unnormalised image embedding, and text heads with each model's own padding."""

from __future__ import annotations

import functools
import html
import json
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ftfy
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from extract.libraries.saved import Source
from extract.libraries.transformers.inner import patch_embeddings
from extract.models.base import HeadUnavailable, Outputs, Prepared, Preprocessing
from extract.models.inner import inputs_of
from extract.models.pixels import Normalizer, body_precision, check_precision, to_channels_last, true_float32
from extract.models.remote_code import OPTION, RemoteCodeError, remote_code
from extract.models.text_cache import TextCache
from extract.models.zero_shot import ZeroShotModel

_WITHOUT_MASK = ("siglip",)
"""Trained on texts padded to the full length, without a mask: what follows a text counts."""


def cleaned(text: str, how: str) -> str:
    """Return a text as a text tower is to see it.

    Parameters
    ----------
    text
        As prompts and captions have it.
    how
        ``none``, ``lower``, or ``canonicalize``: in lower case, underscores as spaces, without punctuation, as
        big_vision evaluates SigLIP and open_clip runs it.
    """
    if how == "none":
        return text
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(text.lower().split())


class Tokens:
    """A tokenizer of transformers that pads every text to one length.

    Attributes
    ----------
    context_length
        Tokens that the text tower reads.
    tokenizer
        transformers' own.
    """

    def __init__(self, tokenizer: Any, context_length: int, clean: str) -> None:
        self.tokenizer, self.context_length, self._clean = tokenizer, context_length, clean

    def inputs(self, texts: Sequence[str], context_length: int | None = None) -> dict[str, torch.Tensor]:
        """Return everything that a text tower takes of texts, each (m, L)."""
        found = self.tokenizer(
            [cleaned(text, self._clean) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=context_length or self.context_length,
            return_tensors="pt",
        )
        return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """Return (m, L) tokens, as `extract.models.text_checks` compares them."""
        return self.inputs(texts, context_length)["input_ids"]


def context_length(config: Any, tokenizer: Any) -> int:
    """Return how many tokens a text tower reads: its positions, without those that RoBERTa keeps for padding."""
    text = config.text_config
    positions = int(getattr(text, "max_position_embeddings", 77))
    if getattr(text, "model_type", "") in ("xlm-roberta", "roberta", "altclip_text_model"):
        positions -= int(getattr(text, "pad_token_id", 1) or 0) + 1
    largest = int(getattr(tokenizer, "model_max_length", positions) or positions)
    return min(positions, largest)


class TransformersZeroShot(ZeroShotModel):
    """A model of an image and a text tower in evaluation mode."""

    def __init__(
        self, prepared: Prepared, source: Source, module: Any, clean: str, device: str, precision: str
    ) -> None:
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        self.module: Any = module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module.vision_model)
        self._tower = self._embed
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        self._source, self._spec, self._clean = source, prepared.spec, clean
        height, width = prepared.preprocessing.geometry.output_size
        with torch.inference_mode(), true_float32(self.device):
            zeros = torch.zeros((1, 3, height, width), device=self.device)
            self.feature_width = int(self._embed(zeros).shape[1])
        bias = getattr(module, "logit_bias", None)
        self.card = replace(
            prepared.card,
            feature_width=self.feature_width,
            parameters=sum(parameter.numel() for parameter in module.vision_model.parameters()),
            logit_scale=_scale(module),
            logit_bias=None if bias is None else float(bias.detach()),
        )
        tower = json.dumps([prepared.card.library, source.model_type, prepared.files_digest, clean])
        self._texts = TextCache(self.card.weights_digest, tower)

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        return _pooled(self.module.get_image_features(pixel_values=images))

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the projected image embedding, not normalised; see `LoadedModel.forward`."""
        with body_precision(self.device, self.precision):
            pooled = self._tower(self._normalize(pixels))
        return Outputs(pooled.float(), None)

    @torch.inference_mode()
    def forward_with(self, pixels: torch.Tensor, arrays: Sequence[str]) -> Outputs:
        """Return the image embedding and what further arrays are made of; see `LoadedModel.forward_with`."""
        with (
            body_precision(self.device, self.precision),
            inputs_of(self.module.vision_model.encoder.layers[-1]) as seen,
        ):
            pooled = self._embed(self._normalize(pixels))
            parts = {"patches": patch_embeddings(self.module, seen[0])} if "patches" in arrays else {}
        return Outputs(pooled.float(), None, parts)

    @functools.cached_property
    def _tokenizer(self) -> Tokens:
        trusted = bool(self._spec.flag(OPTION))
        try:
            with remote_code(trusted, self._spec.where, f"the tokenizer of {self.card.id}"):
                tokenizer = AutoTokenizer.from_pretrained(
                    str(self._source.folder), local_files_only=True, **({OPTION: True} if trusted else {})
                )
        except RemoteCodeError as error:
            raise HeadUnavailable(str(error)) from None
        except (ImportError, OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise HeadUnavailable(
                f"{self.card.id}: its tokenizer cannot be used: save it beside the weights with"
                f" tokenizer.save_pretrained ({reason})"
            ) from error
        return Tokens(tokenizer, context_length(self.module.config, tokenizer), self._clean)

    def _encoded(self, texts: list[str]) -> NDArray[Any]:
        inputs = {key: value.to(self.device) for key, value in self._tokenizer.inputs(texts).items()}
        if self._source.model_type in _WITHOUT_MASK:
            inputs = {"input_ids": inputs["input_ids"]}
        with true_float32(self.device):
            rows = _pooled(self.module.get_text_features(**inputs)).float()
        encoded: NDArray[Any] = torch.nn.functional.normalize(rows, dim=-1).cpu().numpy()
        return encoded


def _pooled(output: Any) -> torch.Tensor:
    """Return the projected embedding, which newer versions of transformers wrap."""
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return found


def _scale(module: Any) -> float:
    """Return what cosines are multiplied by; ALIGN divides them by a temperature."""
    if (temperature := getattr(module, "temperature", None)) is not None:
        return float(1 / temperature.detach())
    return float(module.logit_scale.detach().exp())
