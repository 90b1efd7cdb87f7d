"""Every kind of classifier that timm has: features, head and logits from one forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_model
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from extract.classes.spaces import class_space
from extract.libraries import load, prepare
from extract.libraries.timm.heads import Part, parts_of
from extract.models.heads import affine_map
from extract.zoo.model_list import parse_line


class Case(NamedTuple):
    arch: str
    width: int
    affine: bool = True
    side: int = 0  # of the input, where the architecture takes smaller ones than its own


CASES = [
    Case("test_vit", 64),  # linear
    Case("mobilenetv3_small_050", 1024, side=64),  # linear; its num_features is another number
    Case("volo_d1_224", 384, affine=False),  # adds half of a maximum over tokens
    Case("dla46x_c", 256, side=64),  # 1x1 convolution after pooling
    Case("resnetv2_18", 512, side=64),  # the same within a head module
    Case("efficientformerv2_s0", 176),  # two heads on one input
    Case("swiftformer_xs", 220),
    Case("levit_128s", 384),  # two heads with a batch norm each
    Case("levit_256d", 512),  # one
    Case("deit_tiny_distilled_patch16_224", 2 * 192),  # two heads on two tokens
    Case("pit_ti_distilled_224", 2 * 256),
    Case("crossvit_tiny_240", 96 + 192),  # mean of two branches
    Case("efficientvim_m1", 960, side=64),  # four heads, softmax weights
    Case("efficientvim_m1_dist", 960, side=64),  # twice four
    Case("repvit_m1", 384, side=64),  # two batch-normed heads in one module
    Case("cpubone_nano", 1600, side=64),  # a wrapped linear layer
    Case("caformer_s18", 4 * 512, side=64),  # MLP head: the input of its last layer
    Case("sequencer2d_s", 384),  # the classifier is the whole head module
]


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def randomised(model: nn.Module) -> nn.Module:
    """Give heads, their norms and mixing weights values that are not zero or one: those would hide errors."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in parts_of(model):
            for module in part.layer.modules():
                for value in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                    if value.is_floating_point():
                        value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.02)
                        value.sub_(0.12 if isinstance(module, (nn.Linear, nn.Conv2d)) else 0)
        for name in ("weights", "weights_dist"):
            if isinstance(mixing := getattr(model, name, None), torch.Tensor):
                mixing.copy_(torch.arange(len(mixing)) * 0.5)
    return model.eval()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Case], tuple[nn.Module, str]]:
    """Return a function that builds, randomises and saves a model; it gives the model and its line."""

    def build(case: Case) -> tuple[nn.Module, str]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = randomised(timm.create_model(case.arch))
        save_model(model, str(tmp_path / "w.safetensors"))
        side = f" input_size={case.side} crop_pct=1" if case.side else ""
        return model, f"timm:{case.arch} checkpoint={tmp_path / 'w.safetensors'}{side}"

    return build


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.arch)
def test_each_kind_of_head(case: Case, saved: Any) -> None:
    reference, line = saved(case)
    args = {"input_size": (3, case.side, case.side), "crop_pct": 1.0} if case.side else {}
    transform = create_transform(**resolve_model_data_config(reference, args=args, use_test_size=True))
    images = [picture(90, 70), picture(60, 80)]
    with torch.inference_mode():
        theirs = reference(torch.stack([transform(image) for image in images]))
    del reference

    prepared = prepare(parse_line(line)[0])
    model = load(prepared)
    pixels = torch.from_numpy(np.stack([prepared.preprocessing.geometry(image) for image in images]))
    ours = model.forward(pixels)
    assert ours.logits is not None
    assert torch.equal(ours.logits, theirs)
    assert ours.features.shape == (2, case.width) == (2, model.feature_width)
    assert ours.features.dtype == torch.float32

    head = model.head(class_space("imagenet-1k"))
    assert (head.affine, model.card.head_kind) == (case.affine, "linear" if case.affine else "non-affine")
    span = float(theirs.max() - theirs.min())
    error = np.abs(head.logits(ours.features.numpy()) - theirs.numpy()).max() / span
    assert (error <= 1e-4) == case.affine
    assert (head.residual <= 1e-4) == case.affine
    assert theirs.std(dim=1).min() > 1e-3 * span  # else the test would say nothing


def test_two_tokens_keep_their_own_weights(saved: Any) -> None:
    """The mean of the two tokens, which timm calls pre_logits, would not give the logits back."""
    reference, line = saved(Case("deit_tiny_distilled_patch16_224", 384))
    head = load(prepare(parse_line(line)[0])).head(class_space("imagenet-1k"))
    expected = torch.cat([reference.head.weight, reference.head_dist.weight], dim=1) / 2
    np.testing.assert_array_equal(head.weight, expected.detach().numpy())
    np.testing.assert_allclose(
        head.bias, (reference.head.bias + reference.head_dist.bias).detach().numpy() / 2, rtol=1e-6
    )


def test_affine_maps_are_recovered_from_any_module() -> None:
    torch.manual_seed(0)
    wrapped = randomised_wrapper()
    weight, bias = affine_map(wrapped)
    x = torch.randn(5, 6)
    with torch.no_grad():
        np.testing.assert_allclose(x.numpy() @ weight.T + bias, wrapped(x).numpy(), atol=1e-5)
    assert weight.dtype == np.float64
    with pytest.raises(ValueError, match="width of its input"):
        affine_map(nn.Identity())


def randomised_wrapper() -> nn.Module:
    layer = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)).eval()
    with torch.no_grad():
        layer[0].running_mean.uniform_(-1, 1)
        layer[0].running_var.uniform_(0.5, 2)
    return layer


def test_mixing_weights_enter_by_their_softmax() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 3), nn.Linear(4, 3)])
            self.weights = nn.Parameter(torch.tensor([0.0, 1.0]))

        def get_classifier(self) -> nn.Module:
            return self.heads

    parts = parts_of(Mixed())
    shares = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    np.testing.assert_allclose([part.factor for part in parts], shares)
    assert all(isinstance(part, Part) and part.group == 0 for part in parts)
