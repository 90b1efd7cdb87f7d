"""Questions about the images of a pass: which rows they belong to, and which answers there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from extract.classes.choices import Choice
from extract.datasets.base import Dataset
from extract.models.base import LoadedModel, Outputs


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked about every image of a dataset.

    Attributes
    ----------
    questions
        In row order.
    options
        Largest number of options.
    """

    questions: Sequence[Choice]
    options: int

    @staticmethod
    def of(dataset: Dataset) -> Asked | None:
        """Return what a dataset asks; None where it asks nothing."""
        if dataset.questions is None:
            return None
        return Asked(dataset.questions, max(len(one.options) for one in dataset.questions))

    def answers(self, model: LoadedModel, pixels: torch.Tensor, start: int) -> Outputs:
        """Return a model's answers about rows from ``start`` on."""
        return model.answer(pixels, self.questions[start : start + len(pixels)], self.options)

    def wrong(self, logits: NDArray[np.float32], start: int) -> NDArray[np.bool_]:
        """Return (n, options) where a logit is not finite, though the question has such an option; or is not -inf."""
        counts = np.array([len(one.options) for one in self.questions[start : start + len(logits)]])
        absent = np.arange(self.options) >= counts[:, None]
        return np.asarray(np.where(absent, ~np.isneginf(logits), ~np.isfinite(logits)), np.bool_)
