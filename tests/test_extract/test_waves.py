"""As many models on a GPU as its memory takes, on a simulated one: measured, with room to run, and let go of again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extract.models import memory
from extract.models.base import Built
from extract.passes import residency, waves
from extract.passes.prefetch import Prefetcher
from extract.planning.options import RunOptions
from extract.preprocess import Geometry

SIDE = 2
BATCH = 8
TRANSFERS = 2 * BATCH * 3 * SIDE * SIDE
WEIGHTS = 1000
TOTAL = 10_000


@dataclass
class Card:
    """A GPU's memory and torch's allocator, which keeps what is freed until it is asked for it."""

    total: int = TOTAL
    others: int = 0
    allocated: int = 0
    reserved: int = 0
    peak: int = 0

    def take(self, size: int) -> None:
        wanted = self.allocated + size
        if wanted > self.total - self.others:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.allocated = wanted
        self.reserved, self.peak = max(self.reserved, wanted), max(self.peak, wanted)

    def free(self, size: int) -> None:
        self.allocated -= size
        assert self.allocated >= 0

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def torch(self) -> Any:
        """Return what modules see in torch's place."""

        def reset(device: torch.device) -> None:
            self.peak = self.allocated

        cuda = SimpleNamespace(
            mem_get_info=lambda device: (self.total - self.others - self.reserved, self.total),
            memory_reserved=lambda device: self.reserved,
            memory_allocated=lambda device: self.allocated,
            max_memory_allocated=lambda device: self.peak,
            reset_peak_memory_stats=reset,
            empty_cache=self.empty_cache,
        )
        stood_in = {"cuda": cuda, "zeros": lambda shape, **_: torch.zeros(shape, dtype=torch.uint8)}
        return type("Torch", (), {"__getattr__": lambda _, name: stood_in.get(name) or getattr(torch, name)})()


@dataclass
class Module:
    """Weights that are loaded in ten pieces."""

    card: Card
    there: int = 0

    def load(self) -> None:
        for _ in range(10):
            self.card.take(WEIGHTS // 10)
            self.there += WEIGHTS // 10

    def to(self, device: str) -> None:
        assert device == "cpu"
        self.card.free(self.there)
        self.there = 0

    def parameters(self) -> list[torch.Tensor]:
        return [torch.empty(WEIGHTS, dtype=torch.uint8)]

    def buffers(self) -> list[torch.Tensor]:
        return []


@dataclass
class Model:
    """Takes so many bytes a row while it runs."""

    card: Any
    module: Module
    activations: int
    rows: list[int] = field(default_factory=list)
    compiled_rows: int = 0
    preprocessing: Any = field(
        default_factory=lambda: SimpleNamespace(geometry=Geometry("squash", (SIDE, SIDE), (SIDE, SIDE), "bicubic"))
    )

    def weight_bytes(self) -> int:
        return WEIGHTS

    def forward(self, pixels: torch.Tensor) -> None:
        self.module.card.take(self.activations * len(pixels))
        self.module.card.free(self.activations * len(pixels))
        self.rows.append(len(pixels))

    def release(self) -> None:
        self.module.to("cpu")


def gone_through(
    card: Card, activations: list[int], monkeypatch: pytest.MonkeyPatch, each: Callable[[list[Model]], None]
) -> tuple[list[list[str]], list[str]]:
    """Return the waves of models, and those that failed; ``each`` is called with every wave."""
    for module in (residency, waves, memory):
        monkeypatch.setattr(module, "torch", card.torch())

    def build(prepared: Any) -> Built:
        module = Module(card)

        def place(device: str, precision: str) -> Model:
            module.load()
            return Model(prepared.card, module, prepared.activations)

        return Built(prepared, module, place)  # type: ignore[arg-type]

    models = [
        SimpleNamespace(card=SimpleNamespace(id=f"m{i}"), activations=size, spec=SimpleNamespace(options={}))
        for i, size in enumerate(activations)
    ]
    failed: list[str] = []
    options = RunOptions(cache=Path("cache"), device="cuda:0", batch_size=BATCH)
    found = []
    prefetcher = Prefetcher(build)
    for wave in waves.waves(
        models, prefetcher, options, lambda event: None, lambda prepared, error: failed.append(prepared.card.id)
    ):
        found.append([member.id for member in wave])
        each([member.model for member in wave])
    prefetcher.close()
    return found, failed


def test_the_card_is_filled_and_every_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()

    def each(wave: list[Model]) -> None:
        assert card.allocated == WEIGHTS * len(wave)
        card.take(TRANSFERS)
        for model in wave:
            model.forward(torch.empty(BATCH))
            assert model.rows == [BATCH, BATCH]  # probed with a whole batch, run with one
        card.free(TRANSFERS)

    found, failed = gone_through(card, [100] * 20, monkeypatch, each)
    # 8 x 1,000 of weights leave 2,000; one model more would leave less than a batch needs.
    assert [len(wave) for wave in found] == [8, 8, 4]
    assert [name for wave in found for name in wave] == [f"m{i}" for i in range(20)]
    assert failed == []
    assert card.allocated == 0


def test_the_hungriest_model_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = gone_through(Card(), [100, 800, 100, 100, 100], monkeypatch, lambda wave: None)
    # Its 6,400 bytes leave room for two models, not three: 10,000 - 2,000 < 1,000 + 1.2 x 6,400 + the transfers.
    assert found == [["m0", "m1"], ["m2", "m3", "m4"]]
    # Its 4,000 are kept free whoever is loaded after it: 10,000 - 4 x 1,000 > 1,000 + 1.2 x 4,000 + the transfers.
    found, _ = gone_through(Card(), [500] + [100] * 9, monkeypatch, lambda wave: None)
    assert [len(wave) for wave in found] == [5, 5]


def test_a_model_that_takes_no_whole_batch_is_probed_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    found, failed = gone_through(Card(), [3000, 100], monkeypatch, lambda wave: seen.extend(m.rows for m in wave))
    # Two rows of it take 6,000, which leaves room for another model beside 1.2 times that.
    assert (found, failed) == ([["m0", "m1"]], [])
    assert seen == [[2], [BATCH]]


def test_memory_that_others_take_ends_a_wave_early_and_leaves_it_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    take = Module.load

    def load(self: Module) -> None:
        # Another process takes most of what was free after the question was asked.
        if card.allocated == 3 * WEIGHTS and not card.others:
            card.others = TOTAL - 3 * WEIGHTS - WEIGHTS // 2
        take(self)

    monkeypatch.setattr(Module, "load", load)

    def each(wave: list[Model]) -> None:
        assert card.allocated == WEIGHTS * len(wave), "a model that did not fit holds memory"
        assert card.reserved == card.allocated or card.others
        card.others = 1  # it is gone again

    found, failed = gone_through(card, [10] * 5, monkeypatch, each)
    assert (found, failed) == ([["m0", "m1", "m2"], ["m3", "m4"]], [])


def test_a_model_that_fits_nowhere_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(total=WEIGHTS // 2)
    assert gone_through(card, [10, 10], monkeypatch, lambda wave: None) == ([], ["m0", "m1"])
    assert card.allocated == 0, "what was loaded of it is still there"
