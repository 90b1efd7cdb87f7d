"""Models read ahead: in order, within bounds, errors with their model; built on meta, equal bit for bit."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from extract.libraries import build, prepare
from extract.models.base import Built
from extract.models.meta import filled_from_meta
from extract.passes.prefetch import Prefetcher
from extract.zoo.model_list import parse_line

WHOLE = 1 << 30
"""Bytes of a weight file that is large enough for every model here."""


def eventually(condition) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


@dataclass
class Recorder:
    """Builds stand-ins of 100 bytes for strings, and keeps the names in order."""

    built: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __call__(self, name) -> Built:
        self.threads.add(threading.get_ident())
        self.built.append(name)
        if name == "broken":
            raise OSError("no such weights")
        return Built(name, torch.nn.Linear(24, 1), lambda device, precision: (device, precision))


def test_models_come_in_order_and_errors_with_their_model() -> None:
    names = ["a", "broken", "c", "d"]
    record = Recorder()
    models = Prefetcher(record)
    models.want(names[:2])
    models.want(names)
    taken = []
    for name in names:
        if name == "broken":
            with pytest.raises(OSError, match="no such weights"):
                models.take(name)
        else:
            taken.append(models.take(name).prepared)
    models.close()
    assert taken == ["a", "c", "d"]
    assert record.built == names
    assert len(record.threads) == 1
    assert threading.get_ident() not in record.threads


@pytest.mark.parametrize(
    ("bounds", "waiting"), [({"most_bytes": 250}, 3), ({"most_bytes": 0}, 1), ({"most_models": 2}, 2)]
)
def test_no_more_wait_than_allowed(bounds: dict[str, int], waiting: int) -> None:
    record = Recorder()
    models = Prefetcher(record, **bounds)
    names = [f"model {i}" for i in range(8)]
    models.want(names)
    assert eventually(lambda: len(record.built) >= waiting)
    time.sleep(0.05)
    assert len(record.built) == waiting
    models.take(names[0])
    assert eventually(lambda: len(record.built) >= waiting + 1)
    time.sleep(0.05)
    assert len(record.built) == waiting + 1
    # Whoever waits for a model that nobody expected does not wait for room.
    assert models.take("other").prepared == "other"
    assert [models.take(name).prepared for name in names[1:]] == names[1:]
    models.close()


def test_closing_ends_the_thread_and_drops_what_waits() -> None:
    models = Prefetcher(Recorder())
    models.want(["a", "b"])
    models.take("a")
    models.close()
    with pytest.raises(RuntimeError, match="closed"):
        models.take("b")


META = {
    # name, arguments: built on meta?
    ("resnet18", ()): True,
    ("vit_tiny_patch16_224", (("depth", 2),)): True,
    ("test_efficientnet", ()): True,
    # Relative positions and rotary tables are computed when the model is built and are in no file.
    ("swin_tiny_patch4_window7_224", (("depths", (1, 1, 1, 1)),)): False,
    ("eva02_tiny_patch14_224", (("depth", 2),)): False,
    ("levit_128s", ()): False,
}


@pytest.mark.parametrize(("case", "quick"), META.items(), ids=[name for name, _ in META])
def test_models_built_on_meta_equal_the_others_or_are_built_the_usual_way(case, quick: bool) -> None:
    name, arguments = case
    torch.manual_seed(3)
    usual = timm.create_model(name, num_classes=7, **dict(arguments)).eval()
    found = filled_from_meta(
        lambda: timm.create_model(name, num_classes=7, **dict(arguments)), usual.state_dict(), WHOLE
    )
    assert (found is not None) == quick
    if found is None:
        return
    assert not any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers()))
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(found.eval()(images), usual(images), rtol=0, atol=0)


class Table(torch.nn.Module):
    """A layer with a tensor that is neither parameter nor buffer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        if kind == "list":
            self.tables = [torch.arange(4)]
        elif kind == "buffer":
            self.register_buffer("table", torch.arange(4), persistent=False)
        elif kind == "shared":
            self.other = torch.nn.Linear(4, 4)
            self.other.weight = self.linear.weight
        elif kind == "value":
            self.size = int(torch.arange(4).sum().item())


@pytest.mark.parametrize(
    ("kind", "quick"), [("", True), ("list", False), ("buffer", False), ("shared", False), ("value", False)]
)
def test_what_a_file_does_not_hold_is_not_lost(kind: str, quick: bool) -> None:
    state = Table(kind).state_dict()
    assert (filled_from_meta(lambda: Table(kind), state, WHOLE) is not None) == quick
    assert filled_from_meta(lambda: Table(kind), {**state, "more": torch.zeros(1)}, WHOLE) is None


def test_half_precision_files_are_widened_as_usual(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    (spec,) = parse_line(f"timm:test_resnet checkpoint={tmp_path / 'half.safetensors'} num_classes=3")
    module = build(prepare(spec)).module
    for key, value in module.state_dict().items():
        assert value.dtype == state[key].dtype
        torch.testing.assert_close(value, half[key].to(state[key].dtype), rtol=0, atol=0)
