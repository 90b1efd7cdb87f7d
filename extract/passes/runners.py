"""A model in a pass: its head, where its outputs go, and a batch that is halved until it fits the device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from extract.models.base import LoadedModel, Outputs
from extract.models.memory import free_cached, is_out_of_memory, without_traceback
from extract.models.pixels import true_float32
from extract.passes.asking import Asked
from extract.passes.patches import PATCHES, best_patches


class Sink(Protocol):
    """Takes a model's outputs in row order."""

    def append(
        self,
        features: NDArray[np.float32] | None,
        logits: NDArray[np.float32] | None,
        valid: NDArray[np.bool_],
        parts: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Take the next rows; rows that are not valid are NaN. ``parts`` are further arrays by name."""
        ...

    def finish(self, record: dict[str, object]) -> None:
        """Seal and publish."""
        ...

    def abort(self) -> None:
        """Leave nothing behind."""
        ...


@dataclass(eq=False)
class TextHead:
    """A zero-shot classifier on the device: cosine times scale plus bias."""

    weight: torch.Tensor  # (C, D) float32, unit rows
    bias: torch.Tensor  # (C,) float32
    scale: float

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) float32 of unnormalised embeddings (B, D)."""
        with true_float32(features.device):
            unit = torch.nn.functional.normalize(features.float(), dim=-1)
            return self.scale * (unit @ self.weight.T) + self.bias


@dataclass(eq=False)
class Runner:
    """One model in a pass.

    Attributes
    ----------
    model
        The loaded model.
    sink
        Where its outputs go.
    text_head
        For zero-shot models with a class space; None leaves the model's own logits, or none.
    error
        What ended this model's part of the pass; the others go on.
    """

    model: LoadedModel
    sink: Sink
    text_head: TextHead | None = None
    arrays: tuple[str, ...] = ()
    """What is stored besides, names of ``extract.planning.arrays.ARRAYS``."""
    views: bool = False
    """Whether the pixels are all views of each image, whose surest ones are stored besides."""
    asked: Asked | None = None
    """What is asked about each image of the dataset."""
    view: int = 0
    """Which of a batch's views are this model's pixels."""
    error: BaseException | None = None
    compiled_rows: int = 0
    """The only number of rows that a compiled model takes without being compiled again; 0 where it is not."""
    largest: int = 0
    """Rows that fit the device's memory at once; 0 while nothing has run out."""
    ending: threading.Lock = field(default_factory=threading.Lock)
    """Held while the sink is finished."""
    dropped: bool = False

    def drop(self) -> None:
        """Leave nothing of the sink behind but what is finished; it is not finished any more."""
        with self.ending:
            self.dropped = True
            self.sink.abort()

    def fail(self, error: Exception) -> None:
        """Remember what ended this model's part."""
        if self.error is None:
            self.error = without_traceback(error)


def _forward(runner: Runner, pixels: torch.Tensor, padded: int = 0, start: int = 0) -> Outputs:
    rows = len(pixels)
    if rows < padded:
        pixels = torch.cat([pixels, pixels.new_zeros((padded - rows, *pixels.shape[1:]))])
    if runner.asked is not None:
        return runner.asked.answers(runner.model, pixels, start)
    found = runner.model.forward_with(pixels, runner.arrays) if runner.arrays else runner.model.forward(pixels)
    features = None if found.features is None else found.features[:rows]
    logits = None if found.logits is None else found.logits[:rows]
    parts = {name: values[:rows] for name, values in found.parts.items()}
    head = runner.text_head
    if head is not None and features is not None:
        logits = head(features)
    if PATCHES in parts:
        assert head is not None
        parts |= best_patches(parts.pop(PATCHES), head.weight)
    return Outputs(features, logits, parts)


def forward_halving(runner: Runner, pixels: torch.Tensor, start: int = 0) -> Outputs:
    """Run a model over a batch; where the device runs out of memory, over halves of it, down to single images.

    The rows that fit are remembered, so that memory runs out once a model, not once a batch. A compiled model gets
    batches of one size, the last one filled up with zeros whose outputs are dropped. ``start``: the batch's first row.

    Returns
    -------
    Outputs
        Of all rows; logits of the runner's text head where it has one.

    Raises
    ------
    torch.OutOfMemoryError, RuntimeError
        Even one image does not fit.
    """
    rows = pixels.shape[0]
    while True:
        most = runner.largest or runner.compiled_rows or rows
        step, padded = min(most, rows), most if runner.compiled_rows else 0
        try:
            found = [_forward(runner, pixels[i : i + step], padded, start + i) for i in range(0, rows, step)]
            if len(found) == 1:
                return found[0]
            parts = {name: torch.cat([one.parts[name] for one in found]) for name in found[0].parts}
            return Outputs(_whole([one.features for one in found]), _whole([one.logits for one in found]), parts)
        except Exception as error:
            if (padded or step) == 1 or not is_out_of_memory(error):
                raise
        free_cached(pixels.device)
        runner.largest = (padded or step) // 2


def _whole(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(there) if there else None
