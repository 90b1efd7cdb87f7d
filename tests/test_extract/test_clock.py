"""What bounds a pass, measured from its first batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from extract.models.base import Outputs
from extract.passes import forward
from extract.passes.batches import PixelBatch, View
from extract.passes.clock import Clock, duration, finished_line, first_line
from extract.passes.forward import run_pass
from extract.passes.runners import Runner


def clock(decode: float, forward: float) -> Clock:
    """Return 100 images through two models, at seconds an image (decoding, and both models)."""
    return Clock(images=100, forwarded=200, decode=100 * decode, forward=100 * forward, wall=4.0, batches=3)


def test_the_slower_side_bounds_the_pass() -> None:
    line = first_line(clock(0.02, 0.05), 1000, 2, 1)
    assert line == "decodes 50 images/s in 1 process, 20 images/s through 2 models: bound by the models, about 45 s"
    line = first_line(clock(0.2, 0.05), 1000, 2, 2)
    assert "decodes 10 images/s in 2 processes, 20 images/s through 2 models: bound by decoding" in line
    assert line.endswith("about 1 min 30 s")
    # One after the other in one process: 0.02 + 0.05 seconds for each of the 900 images left.
    assert first_line(clock(0.02, 0.05), 1000, 2, 0).endswith("in this process, 20 images/s through 2 models:"
                                                              " bound by the models, about 1 min 03 s")  # fmt: skip
    assert "decoded pixels are kept" in first_line(clock(0.0, 0.05), 1000, 2, 2)


def test_a_short_pass_and_one_without_numbers_say_nothing() -> None:
    assert first_line(clock(0.02, 0.05), 200, 2, 1) == ""
    assert first_line(Clock(images=100, wall=4.0, batches=3), 100000, 2, 1) == ""


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 59, 61, 3600, 7325)] == ["0 s", "59 s", "1 min 01 s", "1 h 00 min", "2 h 02 min"]


class Mean:
    """A stand-in for a model."""

    def forward(self, pixels: torch.Tensor) -> Outputs:
        return Outputs(pixels.float().mean((2, 3)), None)


class Nowhere:
    """A sink that keeps nothing."""

    def append(self, features, logits, valid, parts) -> None:
        self.thread = threading.current_thread()


def test_a_pass_tells_its_rates_once_and_accounts_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MEASURED_SECONDS", 0.0)
    pixels, valid = np.zeros((2, 4, 4, 3), np.uint8), np.ones(2, bool)
    batches = [PixelBatch(i, i + 2, (View(pixels, valid),), seconds=0.25) for i in range(0, 12, 2)]
    parts: list[tuple[int, int, int, float]] = []
    sinks = Nowhere(), Nowhere()
    result, problems = run_pass(
        [Runner(Mean(), sink) for sink in sinks],
        batches,
        torch.device("cpu"),
        on_rates=lambda c: parts.append((c.batches, c.images, c.forwarded, c.decode)),
    )
    assert parts == [(3, 6, 12, 0.75)]
    assert problems == {0: []}
    assert sinks[0].thread is sinks[1].thread is not threading.main_thread()
    sinks[0].thread.join(60)  # it has reported that it has ended, and has a step to go
    assert not sinks[0].thread.is_alive()
    assert (result.images, result.forwarded, result.batches, result.decode) == (12, 24, 6, 1.5)
    record = result.record()
    assert record["images"] == 12
    assert 0 < record["forward_share"] + record["decode_wait_share"] + record["transfer_share"] <= 1
    assert result.write_cpu > 0


def test_a_finished_pass_names_what_it_waited_for() -> None:
    clock = Clock(6.0, decode=18.0, forward=3.0, write=0.4, write_wait=0.5, wall=10.0, images=500, processes=2)
    assert finished_line(clock) == (
        "50 images/s, bound by decoding (device busy 30%, decoding 90%, transfer 0%, writing 4%;"
        " waited 60% for images, 5% for the writer)"
    )
