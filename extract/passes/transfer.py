"""Decoded batches onto the device, outputs back into the machine's memory; on a GPU both while it computes."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray


class _Slot:
    """A batch's place in pinned memory and on the device."""

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        self.host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        self.there = torch.empty(n_bytes, dtype=torch.uint8, device=device)
        # Blocking: the waiting thread sleeps and leaves its core to decoding.
        self.begun = torch.cuda.Event(enable_timing=True)
        self.copied = torch.cuda.Event(enable_timing=True, blocking=True)
        self.used = torch.cuda.Event()
        self.filled = False


class Transfer:
    """Moves uint8 batches to the device through pinned memory, on a stream of its own while the device computes.

    There are two places for a batch, of whatever geometry: while the models read one, the next batch is copied into the
    other. None is written again before the models are done with it, so this process never runs far ahead of the device.

    Attributes
    ----------
    seconds
        What copying took, in this process and on its way to the device; waiting for the models is no part of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.slots: list[_Slot] = []
        self.turn = 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def reserve(self, n_bytes: int) -> None:
        """Make room for batches of so many bytes; where there was less, what was returned before ends being valid."""
        if self.stream is not None and (not self.slots or len(self.slots[0].host) < n_bytes):
            self.slots = [_Slot(n_bytes, self.device) for _ in range(2)]
            # Their memory may still be read by what was handed to the device before it was freed.
            self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def __call__(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return (B, 3, H, W) on the device, valid until two more batches were asked for."""
        if self.stream is None:
            begun = time.perf_counter()
            there = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)
            self.seconds += time.perf_counter() - begun
            return there
        self.reserve(pixels.nbytes)
        self.turn ^= 1
        slot, size = self.slots[self.turn], pixels.nbytes
        slot.copied.synchronize()
        if slot.filled:
            self.seconds += slot.begun.elapsed_time(slot.copied) / 1000
        begun = time.perf_counter()
        slot.host[:size].numpy().reshape(pixels.shape)[...] = pixels
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(slot.used)
            slot.begun.record(self.stream)
            slot.there[:size].copy_(slot.host[:size], non_blocking=True)
            slot.copied.record(self.stream)
        torch.cuda.current_stream(self.device).wait_event(slot.copied)
        slot.filled = True
        self.seconds += time.perf_counter() - begun
        return slot.there[:size].view(pixels.shape).permute(0, 3, 1, 2)

    def done(self) -> None:
        """Say that everything which reads the last batch has been handed to the device."""
        if self.stream is not None:
            self.slots[self.turn].used.record(torch.cuda.current_stream(self.device))


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as float32 in the machine's memory; from a GPU it is there when the device has come so far."""
    if not tensor.is_cuda:
        # The sink may still hold it when the model overwrites a buffer of its own.
        return tensor.detach().float().clone()
    host = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
    return host.copy_(tensor.detach().float(), non_blocking=True)


class Timed:
    """The device's own time between two moments of what it is given; on the CPU there is nothing to wait for."""

    def __init__(self, device: torch.device) -> None:
        self._begun = torch.cuda.Event(enable_timing=True)
        self._ended = torch.cuda.Event(enable_timing=True, blocking=True)
        self._stream = torch.cuda.current_stream(device)
        self._begun.record(self._stream)

    def end(self) -> None:
        """Say that all of it has been handed to the device."""
        self._ended.record(self._stream)

    def wait(self) -> float:
        """Wait until the device is done with it; return the seconds that it took."""
        self._ended.synchronize()
        return float(self._begun.elapsed_time(self._ended)) / 1000
