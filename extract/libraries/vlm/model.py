"""A vision-language model at work: the log-likelihoods of the answers as logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from closerlook_common.errors import UserError
from extract.classes.choices import Choice
from extract.libraries.vlm.choosing import Chooser
from extract.libraries.vlm.preparing import PreparedVlm
from extract.libraries.vlm.prompts import answers_of, prompt_of
from extract.libraries.vlm.scoring import Scorer
from extract.models.base import CompileError, Outputs
from extract.models.classifier import ClassifierModel
from extract.models.heads import AffineHead
from extract.models.memory import is_out_of_memory
from extract.models.pixels import body_precision, true_float32


class VlmModel(ClassifierModel):
    """A model of image and text that answers in classes; it gives logits alone.

    Parameters
    ----------
    prepared
        With the names of the classes.
    processor
        Of the model.
    module
        Of transformers.
    device, precision
        As for every model.
    """

    def __init__(self, prepared: PreparedVlm, processor: Any, module: Any, device: str, precision: str) -> None:
        noise = self._place(prepared, module, device, precision)
        question, names = prepared.question, prepared.names
        divisors = [1] * len(names)
        scorer: Scorer | Chooser
        try:
            if prepared.chooses:
                scorer = Chooser(self.module, processor, question, self.device)
            else:
                texts = question.texts(names)
                prompt = prompt_of(processor, question, names)
                answers = answers_of(processor, prompt, texts, end=question.end)
                scorer = Scorer(self.module, processor, prompt, answers, self.device)
                divisors = _divisors(question.normalize, texts, answers.tokens)
            with torch.inference_mode(), true_float32(self.device):
                scorer.check(_channels_first(noise))
        except UserError as error:
            raise UserError(f"{prepared.card.id}: {error}") from error
        except Exception as error:  # whatever the code of a processor or a model raises
            if is_out_of_memory(error):
                raise
            size, reason = " x ".join(map(str, noise.shape[1:3])), " ".join(str(error).split())[:200]
            raise UserError(
                f"{prepared.card.id}: it cannot be asked about an image of {size} ({type(error).__name__}: {reason})"
            ) from error
        self._scorer = scorer
        if isinstance(scorer, Scorer):
            self._tower = scorer
        self._divisors = torch.tensor(divisors, dtype=torch.float32, device=self.device)
        # No layer acts on features: the log-likelihoods are the truth.
        empty = np.zeros((len(names), 0), dtype=np.float32)
        self._adopt(prepared, module, AffineHead((), empty, np.zeros(len(names), dtype=np.float32), float("inf")), 0)

    def compile(self, rows: int, *, backend: str = "inductor") -> None:
        """Raise CompileError: prompts and answers of many lengths would each be compiled."""
        del rows, backend
        raise CompileError("models that answer questions are not compiled")

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the log-likelihoods of the answers as logits; see `LoadedModel.forward`."""
        if not isinstance(self._scorer, Scorer):
            raise UserError(f"{self.card.id} answers in the options of questions, and none was asked")
        with body_precision(self.device, self.precision):
            scores = self._scorer(_channels_first(pixels))
        return self._checked(None, scores / self._divisors)

    @torch.inference_mode()
    def answer(self, pixels: torch.Tensor, asked: Sequence[Choice], options: int) -> Outputs:
        """Return the log-likelihoods of the letters of each image's options; see `LoadedModel.answer`."""
        if not isinstance(self._scorer, Chooser):
            raise UserError(f"{self.card.id} answers in classes, not in the options of questions")
        with body_precision(self.device, self.precision):
            return Outputs(None, self._scorer(_channels_first(pixels), asked, options).float())


def _channels_first(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)).contiguous()


def _divisors(normalize: str, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[int]:
    if normalize == "none":
        return [1] * len(texts)
    return [len(text) for text in (tokens if normalize == "tokens" else texts)]
