"""Questions with options: each image is asked its own, and the letters of its options are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from extract.classes.choices import Choice
from extract.libraries.vlm.prompts import Answers, Prompt, answers_of, prompt_of
from extract.libraries.vlm.questions import Question, question_for
from extract.libraries.vlm.scoring import Scorer

EXAMPLE = Choice("", ("one", "other"))
"""What is asked to see whether a model can be asked at all."""


class Chooser:
    """A model that is asked a question about every image.

    Images whose prompts have as many tokens and whose letters are the same tokens are read together, so that nothing
    is padded.

    Parameters
    ----------
    module, processor
        Of transformers.
    question
        Of the model's line.
    device
        Where the module is.
    """

    def __init__(self, module: Any, processor: Any, question: Question, device: torch.device) -> None:
        self._module, self._processor, self._question, self._device = module, processor, question, device
        self._scorers: dict[Answers, Scorer] = {}

    def check(self, images: torch.Tensor) -> None:
        """Raise UserError where the model cannot be asked; see `Scorer.check`."""
        prompt, answers = self._put(EXAMPLE)
        self._scorer(prompt, answers).check(images)

    def __call__(self, images: torch.Tensor, asked: Sequence[Choice], options: int) -> torch.Tensor:
        """Return (B, options) float32 log-likelihoods of each image's letters, -inf where it has fewer options.

        Parameters
        ----------
        images
            (B, 3, H, W) uint8.
        asked
            Question and options of each image.
        options
            Columns of the result.
        """
        put = [self._put(one) for one in asked]
        groups: dict[tuple[int, Answers], list[int]] = {}
        for row, (prompt, answers) in enumerate(put):
            groups.setdefault((self._length(prompt), answers), []).append(row)
        found = torch.full((len(images), options), -torch.inf, device=self._device)
        for (_, answers), rows in groups.items():
            scorer = self._scorer(put[rows[0]][0], answers)
            scores = scorer(images[rows], [put[row][0].text for row in rows])
            found[rows, : scores.shape[1]] = scores
        return found

    def _put(self, one: Choice) -> tuple[Prompt, Answers]:
        question = question_for(self._question, one.question)
        prompt = prompt_of(self._processor, question, one.options)
        return prompt, answers_of(self._processor, prompt, question.texts(one.options), end=question.end)

    def _length(self, prompt: Prompt) -> int:
        return len(self._processor.tokenizer(prompt.text, add_special_tokens=False)["input_ids"])

    def _scorer(self, prompt: Prompt, answers: Answers) -> Scorer:
        if answers not in self._scorers:
            self._scorers[answers] = Scorer(self._module, self._processor, prompt, answers, self._device)
        return self._scorers[answers]
