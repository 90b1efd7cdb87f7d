"""Memory that runs out makes batches smaller."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from extract.models.base import Outputs
from extract.passes.runners import Runner, forward_halving


@dataclass
class Greedy:
    """A model whose device holds three images at a time."""

    calls: list[int]
    most: int = 3

    def forward(self, pixels: torch.Tensor) -> Outputs:
        self.calls.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return Outputs(pixels.float().mean((2, 3)), pixels.float().sum((2, 3)))


def test_out_of_memory_halves_the_batch_once_and_remembers() -> None:
    model = Greedy([])
    runner = Runner(model, sink=None)
    pixels = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    for _ in range(2):
        found = forward_halving(runner, pixels)
        features, logits = found.features, found.logits
        torch.testing.assert_close(features, pixels.float().mean((2, 3)))
        torch.testing.assert_close(logits, pixels.float().sum((2, 3)))
    assert model.calls == [10, 5, *[2] * 5, *[2] * 5]
    model.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        forward_halving(runner, pixels)
