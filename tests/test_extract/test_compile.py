"""Compiled models: the same numbers, batches of one size, and a fallback that is reported and recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

import cache_schema
from extract.libraries import load, prepare
from extract.models.base import CompileError, LoadedModel, Outputs
from extract.passes.runners import Runner, forward_halving
from extract.zoo.model_list import parse_line

LINE = "timm:{} allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0 interpolation=bicubic"


def model_of(name: str) -> LoadedModel:
    (spec,) = parse_line(LINE.format(name))
    return load(prepare(spec))


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("line", [LINE.format("test_vit"), "open_clip:ViT-S-32 allow_random=yes"])
def test_a_compiled_model_gives_the_same_numbers(line: str) -> None:
    (spec,) = parse_line(line)
    model = load(prepare(spec))
    side = model.preprocessing.geometry.output_size[0]
    pixels = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    want = model.forward(pixels)
    model.compile(4, backend="eager")
    assert model.compiled_rows == 4
    got = model.forward(pixels)
    torch.testing.assert_close(got.features, want.features, rtol=1e-5, atol=1e-6)
    if want.logits is not None:
        torch.testing.assert_close(got.logits, want.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_default_compiler_gives_the_same_numbers() -> None:
    model = model_of("test_vit")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    want = model.forward(pixels)
    model.compile(2)
    torch.testing.assert_close(model.forward(pixels).logits, want.logits, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compiled_runs_as_before() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        raise RuntimeError("no compiler is installed")

    model = model_of("test_resnet")
    pixels = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    want = model.forward(pixels)
    with pytest.raises(CompileError, match="no compiler is installed"):
        model.compile(2, backend=broken)
    assert model.compiled_rows == 0
    torch.testing.assert_close(model.forward(pixels).logits, want.logits, rtol=0, atol=0)


@dataclass
class Counting:
    """A stand-in that notes the batches it is given and holds only so many rows."""

    most: int
    rows: list[int] = field(default_factory=list)

    def forward(self, pixels: torch.Tensor) -> Outputs:
        self.rows.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return Outputs(pixels.float().mean((2, 3)), pixels.float().sum((2, 3)))


def test_a_compiled_model_sees_batches_of_one_size() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    model = Counting(most=8)
    found = forward_halving(Runner(model, sink=None, compiled_rows=8), pixels)
    features, logits = found.features, found.logits
    assert model.rows == [8]
    torch.testing.assert_close(features, pixels.float().mean((2, 3)))
    torch.testing.assert_close(logits, pixels.float().sum((2, 3)))

    model = Counting(most=2)
    runner = Runner(model, sink=None, compiled_rows=8)
    features = forward_halving(runner, pixels).features
    assert model.rows == [8, 4, 2, 2, 2]
    assert len(features) == 5
    model.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        forward_halving(runner, pixels)


def test_the_command_compiles_and_tells_what_it_could_not(tmp_path: Path, pets: Path, run_extract, monkeypatch) -> None:
    (tmp_path / "models.txt").write_text("\n".join(LINE.format(name) for name in ("test_vit", "test_resnet")))
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    words = ("--model-list", "models.txt", "--batch-size", 8, "--workers", 0)
    run_extract(*words, "--cache", "plain", cwd=tmp_path)
    compiled = LoadedModel.compile

    def compile_one(model: LoadedModel, rows: int) -> None:
        if model.card.id == "test_resnet":
            raise CompileError("no compiler is installed")
        compiled(model, rows, backend="eager")

    monkeypatch.setattr(LoadedModel, "compile", compile_one)
    done = run_extract(*words, "--cache", "compiled", "--compile", cwd=tmp_path)
    assert "test_resnet runs without being compiled: no compiler is installed" in done.stderr
    plain, other = (cache_schema.open_cache(tmp_path / name) for name in ("plain", "compiled"))
    for name, was_compiled in (("test_vit", True), ("test_resnet", False)):
        assert other.store(name, "pets").record["compiled"] is was_compiled
        assert plain.store(name, "pets").record["compiled"] is False
        np.testing.assert_allclose(other.store(name, "pets").logits(), plain.store(name, "pets").logits(), atol=2e-3)
