"""How many models fit the device at once: measured after each load, not guessed."""

from __future__ import annotations

import os

import torch

from extract.models.base import LoadedModel
from extract.models.memory import free_cached, is_out_of_memory
from extract.planning.options import RunOptions

CPU_SHARE = 0.25
"""Weights may fill this share of the machine's memory; the rest is for images, outputs and everybody else."""


PEAK_MARGIN = 1.2
"""Of the largest peak of a batch: what is free is in pieces, and text heads want some too."""


class Residency:
    """Counts what loaded models take and says whether one more has room.

    On a GPU each loaded model runs one batch of zeros, whose peak memory is kept free, besides the weights of the next
    model, as is room for the two batches that are on their way. A model that does not fit after all halves its batch.
    """

    def __init__(self, device: torch.device, options: RunOptions) -> None:
        self.device, self.options = device, options
        self.count = 0
        self.weights = 0
        self.peak = 0
        self.batches = 0

    def add(self, model: LoadedModel) -> None:
        """Take account of a model that has just been loaded."""
        self.count += 1
        self.weights += model.weight_bytes()
        if self.device.type == "cuda":
            height, width = model.preprocessing.geometry.output_size
            self.batches = max(self.batches, 2 * self.options.batch_size * 3 * height * width)
            self.peak = max(self.peak, self._probe(model))

    def has_room(self, size: int) -> bool:
        """Return whether another model, whose weights take ``size`` bytes, may be loaded in addition to these."""
        if self.options.resident:
            return self.count < self.options.resident
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return free + cached > size + PEAK_MARGIN * self.peak + self.batches
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.weights + size < CPU_SHARE * total

    def _probe(self, model: LoadedModel) -> int:
        height, width = model.preprocessing.geometry.output_size
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        rows = model.compiled_rows or self.options.batch_size
        while rows:
            try:
                pixels = torch.zeros((rows, 3, height, width), dtype=torch.uint8, device=self.device)
                with torch.inference_mode():
                    model.forward(pixels)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            free_cached(self.device)
            rows //= 2
        return torch.cuda.max_memory_allocated(self.device) - before
