"""Models on a GPU that torch pretends to have: where tensors are, of which kind, and that nothing waits for numbers.

torch's fake tensors go through the very dispatch of a GPU, autocast included, but hold nothing: whoever asks one for a
value, which on a GPU would wait for it, gets an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from extract.libraries import build, load, prepare
from extract.libraries.timm import heads
from extract.passes.runners import Runner, TextHead, forward_halving
from extract.zoo.model_list import parse_line

GPU = torch.device("cuda:0")
LINES = {
    "transformer": "timm:test_vit allow_random=yes num_classes=7 input_size=64",
    "convolutions": "timm:test_resnet allow_random=yes num_classes=7 input_size=64",
    "lambda layers": "timm:lambda_resnet26t allow_random=yes num_classes=7 input_size=64",
    "two heads": "timm:deit_tiny_distilled_patch16_224 allow_random=yes num_classes=7",
    "clip": "open_clip:ViT-S-32 allow_random=yes",
    "clip, resnet": "open_clip:RN50 allow_random=yes",
}


class NothingComesBack(TorchDispatchMode):
    """Refuses copies to the machine's memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = any(isinstance(arg, torch.Tensor) and arg.is_cuda for arg in args)
        assert not (given and isinstance(out, torch.Tensor) and not out.is_cuda), "a copy that waits for the device"
        return out


def moved(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Do what ``Module.to`` does; its own way fails for fake tensors."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    there = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    tensors[name] = torch.nn.Parameter(there) if isinstance(tensor, torch.nn.Parameter) else there
    return module


@dataclass
class Seen:
    """What the layers of a body are given and give."""

    kinds: set[torch.dtype] = field(default_factory=set)
    layouts: set[bool] = field(default_factory=set)
    tf32: set[tuple[bool, bool]] = field(default_factory=set)

    def watch(self, body: torch.nn.Module) -> None:
        """Look at convolutions, of which every body has at least one, the first."""
        convolutions = [layer for layer in body.modules() if isinstance(layer, torch.nn.Conv2d)]
        self.layouts.update(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convolutions)
        convolutions[0].register_forward_pre_hook(
            lambda _, inputs: self.layouts.add(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        for layer in convolutions:
            layer.register_forward_hook(lambda _, inputs, out: self.kinds.add(out.dtype))
            layer.register_forward_pre_hook(lambda *_: self.tf32.add(tf32_allowed()))


def tf32_allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Allow TF32, as somebody else may have."""
    before = tf32_allowed()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Number:
    """A scale that can be read, as it can while a model is loaded."""

    def detach(self) -> Number:
        return self

    def exp(self) -> Number:
        return self

    def item(self) -> float:
        return 100.0


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch):
    """Return a context in which there is a GPU for whoever only looks at tensors."""

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        monkeypatch.setattr(torch.nn.Module, "to", moved)
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield

    return context


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_forward_pass_stays_on_the_device(line: str, precision: str, pretended, monkeypatch) -> None:
    (spec,) = parse_line(line)
    built = build(prepare(spec))
    clip = line.startswith("open_clip")
    if clip:
        scale = Number()
        del built.module.logit_scale
        built.module.logit_scale = scale
    else:
        found = load(prepare(spec))._affine  # by numbers, which a pretended model has none of
        tapped = lambda model: tuple(part.layer for part in heads.parts_of(model))[: len(found.tapped)]  # noqa: E731
        monkeypatch.setattr(heads, "find_head", lambda model, body: replace(found, tapped=tapped(model)))
    seen = Seen()
    with pretended(), torch.no_grad(), tf32():
        model = built.on("cuda:0", precision)
        seen.watch(model.module.visual if clip else model.module)
        side = model.preprocessing.geometry.output_size[0]
        pixels = torch.empty((5, side, side, 3), dtype=torch.uint8, device=GPU).permute(0, 3, 1, 2)
        weight = torch.empty((9, model.feature_width), device=GPU)
        text_head = TextHead(weight, torch.empty(9, device=GPU), 100.0) if clip else None
        with NothingComesBack(), torch.inference_mode():
            found = forward_halving(Runner(model, None, text_head), pixels)  # type: ignore[arg-type]
            features, logits = found.features, found.logits
        assert tf32_allowed() == (True, True)
    assert logits is not None
    for out, width in ((features, model.feature_width), (logits, 9 if clip else 7)):
        assert (out.device, out.dtype, tuple(out.shape)) == (GPU, torch.float32, (5, width))
    assert seen.kinds == {{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert seen.layouts == {True}
    assert seen.tf32 == {(precision != "fp32",) * 2}
