"""Networks from TorchScript and ONNX files: outputs are those of the file's own runtime, in batches of any size."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cache_schema
from closerlook_common.errors import UserError
from extract.libraries import load, prepare
from extract.models.pixels import Normalizer
from extract.zoo.model_list import parse_line

SEEN = "input_size=32 mean=0.4,0.5,0.6 std=0.25 interpolation=bicubic resize_mode=squash classes=pets"


class Net(nn.Module):
    """Returns what a test asks for: logits alone, a tuple, or a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 3)

    def both(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.stem(images)).mean((2, 3))
        return features, self.head(features)


class Alone(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.both(images)[1]


class Pair(Net):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, logits = self.both(images)
        return logits, features


class Named(Net):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features, logits = self.both(images)
        return {"pooled": features, "scores": logits}


def scripted(folder: Path, kind: type[Net]) -> Net:
    torch.manual_seed(0)
    net = kind().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.zeros(2, 3, 32, 32), strict=False).save(str(folder / "net.pt"))
    return net


def opened(line: str) -> Any:
    return load(prepare(parse_line(line, "models.txt:1")[0]))


def pixels(n: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


def normalized(model: Any, n: int = 5) -> torch.Tensor:
    return Normalizer(model.preprocessing, torch.device("cpu"))(pixels(n))


CASES = {
    "logits alone": (Alone, ""),
    "a tuple": (Pair, "features=1"),
    "a dictionary": (Named, "logits=scores features=pooled"),
}


@pytest.mark.parametrize("case", CASES)
def test_torchscript_gives_what_the_module_gave(case: str, tmp_path: Path) -> None:
    kind, options = CASES[case]
    net = scripted(tmp_path, kind)
    model = opened(f"torchscript:{tmp_path / 'net.pt'} {SEEN} {options}")
    out = model.forward(pixels())
    with torch.inference_mode():
        features, logits = net.both(normalized(model))
    assert torch.equal(out.logits, logits)
    assert out.features is None if kind is Alone else torch.equal(out.features, features)
    assert (model.card.name, model.card.head_kind, model.card.class_space) == ("net.pt", "non-affine", "pets")
    assert model.card.feature_width == (None if kind is Alone else 8)


def exported(file: Path, *, rows: int | str = "n", types: int = 1) -> tuple[Any, Any]:
    """Write the network by hand; return its weights."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(8, 3, 8, 8)), "matrix": rng.normal(size=(3, 8)), "shift": rng.normal(size=3)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], strides=[8, 8]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "shift"], ["scores"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("images", types, [rows, 3, 32, 32])]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, 3]),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [rows, 8, 1, 1]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(file))
    return model, weights


@pytest.mark.parametrize("rows", ["n", 1, 4])
def test_onnx_gives_what_its_runtime_gives(rows: int | str, tmp_path: Path) -> None:
    _, weights = exported(tmp_path / "net.onnx", rows=rows)
    model = opened(f"onnx:{tmp_path / 'net.onnx'} {SEEN} features=pooled")
    out = model.forward(pixels())
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    batch = normalized(model, 8 if rows == 4 else 5).numpy()
    step = rows if isinstance(rows, int) else len(batch)
    parts = [session.run(None, {"images": batch[i : i + step]}) for i in range(0, len(batch), step)]
    np.testing.assert_array_equal(out.logits, np.concatenate([part[0] for part in parts])[:5])
    np.testing.assert_array_equal(out.features, np.concatenate([part[1] for part in parts])[:5].reshape(5, 8))
    maps = torch.relu(nn.functional.conv2d(normalized(model), torch.from_numpy(weights["kernel"]), stride=8))
    logits = maps.mean((2, 3)) @ torch.from_numpy(weights["matrix"]).T + torch.from_numpy(weights["shift"])
    np.testing.assert_allclose(out.logits, logits, rtol=1e-4, atol=1e-4)
    assert model.card.parameters is None


def test_one_line_says_that_the_runtime_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"some")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime: .*pip install .*\[onnx\]"):
        opened(f"onnx:{tmp_path / 'net.onnx'} {SEEN}")


def _two_inputs(folder: Path) -> str:
    exported(folder / "net.onnx", types=7)
    return f"onnx:{folder / 'net.onnx'} {SEEN}"


def _damaged(ending: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        if ending == "onnx":
            pytest.importorskip("onnxruntime")
        (folder / f"net.{ending}").write_bytes(b"not a network")
        return f"{'onnx' if ending == 'onnx' else 'torchscript'}:{folder / f'net.{ending}'} {SEEN}"

    return write


def _script(kind: type[Net], options: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        scripted(folder, kind)
        return f"torchscript:{folder / 'net.pt'} {options}"

    return write


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "no preprocessing": (_script(Alone, "input_size=32"), "nothing says how .* mean= std= interpolation= resize_mode="),
    "no such output": (_script(Named, f"{SEEN} logits=score"), "no output 'score'; did you mean scores"),
    "no such features": (_script(Alone, f"{SEEN} features=pooled"), "no output 'pooled'"),
    "another number of classes": (_script(Alone, f"{SEEN} num_classes=9"), "num_classes=9, but net gives 3 logits"),
    "a checkpoint": (_script(Alone, f"{SEEN} checkpoint=w.pth"), "the file holds its weights"),
    "a damaged archive": (_damaged("pt"), "cannot be loaded"),
    "a damaged graph": (_damaged("onnx"), "cannot be loaded"),
    "whole numbers": (_two_inputs, "one input of float32|cannot be loaded"),
    "nothing": (lambda folder: f"torchscript:{folder / 'none.pt'}", "there is no file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_cost_a_line(case: str, tmp_path: Path) -> None:
    write, message = WRONG[case]
    line = write(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        opened(line)
    assert "\n" not in str(caught.value)


def test_stores_of_logits_alone_are_written_and_read(tmp_path: Path, run_extract: Any) -> None:
    scripted(tmp_path, Alone)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "fox"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "pets" / name / "0.png")
    (tmp_path / "models.txt").write_text(f"torchscript:net.pt id=mine {SEEN}\n")
    words = ["--model-list", "models.txt", "--dataset", "pets=pets", "--workers", 0, "--device", "cpu"]
    run_extract(*words, "--cache", "cache", cwd=tmp_path)
    assert not cache_schema.open_cache(tmp_path / "cache").stores("head")
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores("predictions")
    assert store.model.feature_width is None
    model = opened(f"torchscript:{tmp_path / 'net.pt'} {SEEN}")
    images = [Image.open(tmp_path / "pets" / name).convert("RGB") for name in store.image_ids]
    shaped = torch.stack([torch.from_numpy(model.preprocessing.geometry(image).copy()) for image in images])
    np.testing.assert_allclose(store.logits(), model.forward(shaped).logits, atol=2e-3)
