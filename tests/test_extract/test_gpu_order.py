"""The pass on a GPU that takes its time, in every order that it may: the right rows, or one clear end."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_gpu import DEVICE, Buffer, Machine

from extract.models import memory
from extract.models.base import Outputs
from extract.passes import forward, transfer, worker
from extract.passes import runners as halving
from extract.passes.batches import PixelBatch, View
from extract.passes.clock import Clock
from extract.passes.faults import DeviceLostError
from extract.passes.forward import run_pass
from extract.passes.runners import Runner
from extract.planning.options import RunOptions

SIDES = 2, 3
"""Of two geometries; models take the one and the other in turn."""


class Model:
    """Features are sums of rows of pixels, logits their multiples; some memory runs out at times."""

    def __init__(self, machine: Machine, width: int, most: int = 1 << 30, failures: int = 0) -> None:
        self.machine, self.width, self.most, self.failures = machine, width, most, failures

    def expected(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = pixels.reshape(len(pixels), -1).sum(1, dtype=np.float32)
        factors = np.arange(1, self.width + 1, dtype=np.float32)
        return np.outer(sums, factors), np.outer(sums, -factors[:2])

    def forward(self, pixels: Buffer) -> Outputs:
        hidden = self._layer(pixels, (len(pixels), int(np.prod(pixels.shape[1:]))), lambda p: p.reshape(len(p), -1))
        if len(pixels) > self.most or (self.failures and self.machine.random.random() < 0.3):
            self.failures -= len(pixels) <= self.most
            raise torch.OutOfMemoryError("CUDA out of memory")
        features = self._layer(hidden, (len(pixels), self.width), lambda h: self.expected(h)[0])
        logits = self._layer(hidden, (len(pixels), 2), lambda h: self.expected(h)[1])
        return Outputs(features, logits)  # type: ignore[arg-type]

    def _layer(self, inputs: Buffer, shape: tuple[int, ...], compute: Any) -> Buffer:
        out = self.machine.empty(shape, dtype=torch.float32, device=DEVICE)
        to, of = out.array, inputs.array
        self.machine.put(lambda: np.copyto(to, compute(of)))
        return out


class Rows:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.features: list[np.ndarray] = []
        self.logits: list[np.ndarray] = []

    def append(self, features: np.ndarray, logits: np.ndarray | None, valid: np.ndarray, parts: object) -> None:
        assert logits is not None
        self.features.append(features.copy())
        self.logits.append(logits.copy())


def batches_of(sizes: list[int], seed: int) -> list[PixelBatch]:
    rng, start, batches = np.random.default_rng(seed), 0, []
    for size in sizes:
        pixels = [rng.integers(1, 255, (size, side, side, 3), np.uint8) for side in SIDES]
        batches.append(PixelBatch(start, start + size, tuple(View(each, np.ones(size, bool)) for each in pixels)))
        start += size
    return batches


def passed(machine: Machine, sizes: list[int], models: list[Model]) -> list[Runner]:
    """Run a pass on the machine, from batches whose memory is used again at once."""
    runners = [Runner(model, Rows(), view=i % 2) for i, model in enumerate(models)]  # type: ignore[arg-type]

    def decoded():
        for batch in batches_of(sizes, 0):
            yield batch
            for view in batch.views:
                view.pixels[...] = 255

    with pytest.MonkeyPatch.context() as patch:
        for module in (forward, halving, transfer, memory):
            patch.setattr(module, "torch", machine)
        patch.setattr(forward, "WRITTEN_ROWS", 4)
        run_pass(runners, decoded(), DEVICE)
    return runners


def wrong(runners: list[Runner], sizes: list[int]) -> list[int]:
    """Return which models have other rows than they should."""
    batches, found = batches_of(sizes, 0), []
    for index, runner in enumerate(runners):
        pixels = np.concatenate([batch.views[runner.view].pixels for batch in batches])
        features, logits = runner.model.expected(pixels)
        rows = runner.sink
        same = np.array_equal(np.concatenate(rows.features), features) and np.array_equal(
            np.concatenate(rows.logits), logits
        )
        found += [] if same else [index]
    return found


@settings(max_examples=150)
@given(
    seed=st.integers(0, 1 << 30),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    widths=st.lists(st.integers(2, 5), min_size=1, max_size=3),
)
def test_every_row_is_right_in_every_order(seed: int, sizes: list[int], widths: list[int]) -> None:
    machine = Machine(seed)
    runners = passed(machine, sizes, [Model(machine, width) for width in widths])
    assert [runner.error for runner in runners] == [None] * len(runners)
    assert wrong(runners, sizes) == []


@settings(max_examples=100)
@given(
    seed=st.integers(0, 1 << 30),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    most=st.integers(1, 8),
    failures=st.integers(0, 3),
)
def test_memory_may_run_out_anywhere(seed: int, sizes: list[int], most: int, failures: int) -> None:
    machine = Machine(seed)
    models = [Model(machine, 3, most=most), Model(machine, 2, failures=failures), Model(machine, 4)]
    runners = passed(machine, sizes, models)
    # One image that does not fit ends that model's part, and no other's.
    alive = [runner for runner in runners if runner.error is None]
    assert runners[0] in alive
    assert runners[2] in alive
    assert all(isinstance(runner.error, torch.OutOfMemoryError) for runner in runners if runner.error is not None)
    assert wrong(alive, sizes) == []
    assert runners[0].largest <= most or max(sizes) <= most


WAITS = {
    "the loop overwrites pinned memory that is still being copied": ("synchronize", "loop"),
    "the writer reads outputs that are not there": ("synchronize", "writer"),
    "the models read a batch that is not there": ("wait_event", "computing"),
    "a batch is overwritten while models read it": ("wait_event", "copying"),
    "new places for batches lie where outputs are still read": ("wait_stream", "copying"),
}


@pytest.mark.parametrize("omit", WAITS.values(), ids=WAITS)
def test_each_wait_is_needed(omit: tuple[str, str]) -> None:
    """A test of the test above: without any one of the waits it finds wrong rows."""
    sizes = [2, 3, 3, 5, 5, 5, 5, 5]
    for seed in range(200):
        machine = Machine(seed, omit=omit)
        if wrong(passed(machine, sizes, [Model(machine, 3), Model(machine, 4)]), sizes):
            return
    pytest.fail("nothing goes wrong without it")


@pytest.mark.parametrize("seed", range(40))
def test_a_device_that_is_lost_ends_the_pass(seed: int) -> None:
    sizes = [3] * 12
    machine = Machine(seed, lost_at=10 + 7 * seed)
    models = [Model(machine, 3), Model(machine, 4)]
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(passed(machine, sizes, models))
        except RuntimeError as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert done, "the loop waits for ever"
    if isinstance(done[0], list):
        # Whoever is not reported as failed has every row.
        assert machine.ran < machine.lost_at or any(runner.error is not None for runner in done[0])
        assert wrong([runner for runner in done[0] if runner.error is None], sizes) == []
    writers = [thread for thread in threading.enumerate() if thread.name == "writer"]
    for writer in writers:  # it may have a step to go after it has reported that it has ended
        writer.join(20)
    assert not any(writer.is_alive() for writer in writers)


@pytest.mark.parametrize(
    ("raised", "lost"), [(True, True), (False, True), (True, False)], ids=["by the pass", "by a model", "only a pass"]
)
def test_a_lost_device_is_stated_from_a_failed_pass(tmp_path, monkeypatch, raised: bool, lost: bool) -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    parts: list[Any] = []
    aborted: list[bool] = []

    def failing(runners, *_, **__):
        if raised:
            raise error
        runners[0].fail(error)
        return Clock(), {}

    def synchronize(device: torch.device) -> None:
        if lost:
            raise error

    runner = Runner(None, SimpleNamespace(abort=lambda: aborted.append(True)))  # type: ignore[arg-type]
    monkeypatch.setattr(worker, "run_pass", failing)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(worker.Worker, "_runner", lambda *_: runner)
    mine = worker.Worker(RunOptions(cache=tmp_path), parts.append)
    mine.device, mine.pixels = DEVICE, SimpleNamespace(batches=lambda *_: iter(()))
    mine.sharing = SimpleNamespace(ahead=lambda *_: [], rows=lambda *_: 1)
    job = SimpleNamespace(
        dataset=SimpleNamespace(card=SimpleNamespace(id="set")),
        preprocessing=SimpleNamespace(geometry=None),
        arrays=(),
    )
    members = [(SimpleNamespace(id="model"), job)]
    with pytest.raises(DeviceLostError, match="illegal memory access") if lost else contextlib.nullcontext():
        mine._dataset(members)
    mine.close()
    assert aborted == [True]
    assert [(event.model, event.dataset) for event in parts if event.kind == "failed"] == (
        [] if lost else [("model", "set")]
    )
