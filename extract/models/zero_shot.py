"""Models whose logits come from texts: a head of unit text embeddings for any class space and prompt set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from extract.classes.prompts import DEFAULT_PROMPT_SET, PromptSet, prompt_set
from extract.classes.spaces import ClassSpace
from extract.classes.words import is_words
from extract.models.base import Head, HeadUnavailable, LoadedModel, Outputs, Prepared, Preprocessing
from extract.models.memory import free_cached, is_out_of_memory
from extract.models.modules import logits_of
from extract.models.own import OwnModel
from extract.models.pixels import Normalizer, body_precision, check_precision, to_channels_last, true_float32
from extract.models.text_cache import TextCache
from extract.models.text_checks import check_lengths, check_rows, cut_of

TEXTS_PER_BATCH = 256


class ZeroShotModel(LoadedModel):
    """A model with a text tower; a subclass gives the tokenizer and `_encoded`.

    Attributes
    ----------
    _texts
        Embeddings on disk, by weights, tokenizer and text.
    """

    _texts: TextCache

    @property
    def _tokenizer(self) -> Any:
        """Called with texts, gives tokens; has ``context_length``. None where texts cannot be checked."""
        return None

    @abstractmethod
    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (m, D) unit-norm embeddings of a batch of texts, always computed in float32."""

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (m, D) unit-norm text embeddings, always computed in float32, fewer at a time where memory
        runs out; see `LoadedModel.encode_texts`.
        """
        out = np.empty((len(texts), self.feature_width), dtype=np.float32)
        start, most = 0, TEXTS_PER_BATCH
        while start < len(texts):
            batch = texts[start : start + most]
            try:
                out[start : start + len(batch)] = self._encoded(batch)
                start += len(batch)
                continue
            except Exception as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            free_cached(self.device)
            most = len(batch) // 2
        return out

    def cut_texts(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of the texts that the text context cuts; see `LoadedModel.cut_texts`."""
        return [] if self._tokenizer is None else cut_of(self._tokenizer, texts)

    @contextmanager
    def _explaining_texts(self) -> Iterator[None]:
        try:
            yield
        except HeadUnavailable:
            raise
        except UserError as error:
            raise HeadUnavailable(f"{self.card.id}: {error}") from None

    def head(self, class_space: ClassSpace, prompts: PromptSet | None = None) -> Head:
        """Return the zero-shot classifier of a class space; see `LoadedModel.head`.

        Unit text embeddings are averaged over a class's texts and normalised again, as open_clip's
        ``build_zero_shot_classifier`` does. ``prompts`` defaults to the 80 templates of the CLIP paper.
        """
        prompts = prompts or prompt_set(DEFAULT_PROMPT_SET)
        tokenizer = self._tokenizer
        if tokenizer is not None:
            with self._explaining_texts():
                check_lengths(tokenizer, prompts, class_space)
        total = np.zeros((len(class_space.names), self.feature_width), dtype=np.float64)
        n_templates = 0
        columns = list(prompts.columns(class_space))
        each = np.zeros((len(columns), *total.shape), np.float16) if self.keeps_texts else None
        for members, texts in columns:
            rows = self._texts(texts, self.encode_texts)
            total[list(members)] += rows
            if each is not None:
                each[n_templates, list(members)] = rows
            n_templates += 1
            if self.on_texts is not None:
                self.on_texts(n_templates, len(columns))
        self._texts.trim()
        norms = np.linalg.norm(total, axis=1, keepdims=True)
        if not (norms > 0).all():
            index = int(np.argmin(norms))
            raise HeadUnavailable(f"{self.card.id}: the texts of class {index} ({class_space.names[index]}) cancel out")
        if tokenizer is not None and not is_words(class_space):  # of words, some are the same in small letters
            with self._explaining_texts():
                check_rows(tokenizer, prompts, class_space, total / norms)
        return Head(
            class_space=class_space.id,
            class_names=class_space.names,
            weight=(total / norms).astype(np.float32),
            bias=np.full(len(total), self.card.logit_bias or 0.0, dtype=np.float32),
            normalize_features=True,
            logit_scale=self.card.logit_scale,
            logit_bias=self.card.logit_bias,
            prompt_set=prompts.name,
            templates=prompts.templates,
            n_templates=n_templates,
            text_sum=total.astype(np.float32),
            text_embeddings=each,
        )


class FunctionModel(ZeroShotModel):
    """A zero-shot model of a user's own module and text function.

    Parameters
    ----------
    prepared
        Card and preprocessing.
    own
        With ``encode_text`` and ``logit_scale``.
    device, precision
        As for every model.
    """

    def __init__(self, prepared: Prepared, own: OwnModel, device: str, precision: str) -> None:
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        self.module: Any = own.module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module)
        owner = getattr(own.encode_text, "__self__", own.encode_text)
        if isinstance(owner, torch.nn.Module):
            owner.eval().to(self.device)
        assert own.encode_text is not None
        self._encode: Callable[[list[str]], torch.Tensor] = own.encode_text
        self._tower = self.module
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        self.feature_width = int(prepared.card.feature_width or 0)
        self.card = replace(
            prepared.card,
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            logit_scale=None if own.logit_scale is None else float(own.logit_scale),
            logit_bias=None if own.logit_bias is None else float(own.logit_bias),
        )
        # The function may rest on more than the module's weights, so nothing is kept from run to run.
        self._texts = TextCache("", "")

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the image embedding, not normalised; see `LoadedModel.forward`."""
        with body_precision(self.device, self.precision):
            embedding = logits_of(self._tower(self._normalize(pixels)))
        return Outputs(embedding.float(), None)

    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        with true_float32(self.device):
            rows = torch.as_tensor(self._encode(texts)).float()
        if rows.shape != (len(texts), self.feature_width):
            raise HeadUnavailable(
                f"{self.card.id}: its encode_text gives {tuple(rows.shape)} for {len(texts)} texts,"
                f" not {(len(texts), self.feature_width)}"
            )
        encoded: NDArray[np.float32] = torch.nn.functional.normalize(rows, dim=-1).cpu().numpy()
        return encoded
