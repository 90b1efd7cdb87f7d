"""A model of one's own: what its function returns is run as it is, described, checked, and distinguished by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cache_schema
from closerlook_common.errors import UserError
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.models.base import HeadUnavailable
from extract.models.modules import find_head
from extract.models.pixels import Normalizer
from extract.models.state_digest import state_digest
from extract.zoo.model_list import parse_line

ROOT = Path(__file__).parents[2]
EXAMPLE = f"python:{ROOT / 'examples' / 'own_module.py'}:stripes"

HEADER = """
import torch
from torch import nn

PRE = {"input_size": 32, "mean": 0.5, "std": 0.5, "interpolation": "bicubic", "resize_mode": "squash"}

def usual(module, **more):
    return dict(module=module, preprocessing=PRE, **more)

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.mid = nn.Linear(8, 8)
        self.head = nn.Linear(8, classes)
    def forward(self, x):
        return self.head(torch.relu(self.mid(self.stem(x).mean((2, 3)))))
"""


def written(folder: Path, code: str, name: str = "mine.py") -> str:
    (folder / name).write_text(HEADER + code)
    return f"python:{folder / name}"


def opened(line: str) -> Any:
    return load(prepare(parse_line(line, "models.txt:1")[0]))


def pixels(size: int = 32, n: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


# ---- what a function may return, against the module's own pass


RETURNED = {
    "a module, the line says the rest": (
        "def f(): return Net()",
        "input_size=32 mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash num_classes=3",
    ),
    "a mapping": ("def f(): return {'module': Net(), 'preprocessing': PRE, 'classes': ['a', 'b', 'c']}", ""),
    "an OwnModel": (
        "from extract.models.own import OwnModel\ndef f(): return OwnModel(module=Net(), preprocessing=PRE)",
        "",
    ),
    "an object with logits": (
        "from types import SimpleNamespace\n"
        "class Wrapped(Net):\n    def forward(self, x): return SimpleNamespace(logits=super().forward(x))\n"
        "def f(): return {'module': Wrapped(), 'preprocessing': PRE}",
        "",
    ),
}


@pytest.mark.parametrize("case", RETURNED)
def test_outputs_are_the_modules_own(case: str, tmp_path: Path) -> None:
    code, options = RETURNED[case]
    model = opened(f"{written(tmp_path, code)}:f {options}")
    out = model.forward(pixels())
    normalized = Normalizer(model.preprocessing, torch.device("cpu"))(pixels())
    with torch.inference_mode():
        theirs = model.module(normalized)
        theirs = getattr(theirs, "logits", theirs)
        features = torch.relu(model.module.mid(model.module.stem(normalized).mean((2, 3))))
    assert torch.equal(out.logits, theirs)
    assert torch.equal(out.features, features)
    assert (model.card.library, model.card.id, model.card.name) == ("python", "mine:f", "mine.py:f")
    assert (model.card.head_kind, model.feature_width, model.card.parameters) == ("linear", 8, 3 * 8 * 64 + 8 + 72 + 27)


def test_random_weights_are_the_same_each_time_and_follow_the_seed(tmp_path: Path) -> None:
    line = f"{written(tmp_path, 'def f(): return usual(Net())')}:f"
    first, again, other = (prepare(parse_line(f"{line} {seed}")[0]) for seed in ("", "seed=0", "seed=1"))
    assert first.card.weights_digest == again.card.weights_digest != other.card.weights_digest
    assert len(first.card.weights_digest) == 64


def test_a_function_that_draws_its_own_weights_is_refused(tmp_path: Path) -> None:
    code = "import os\ndef f():\n    torch.manual_seed(int.from_bytes(os.urandom(4)))\n    return usual(Net())"
    with pytest.raises(UserError, match="other weights each time"):
        opened(f"{written(tmp_path, code)}:f")


def test_weights_of_a_file(tmp_path: Path) -> None:
    plain = f"{written(tmp_path, 'def f(): return usual(Net())')}:f"
    own = opened(plain).module.state_dict()
    moved = {name: value + 1 for name, value in own.items()}
    torch.save({"state_dict": {f"module.{name}": value for name, value in moved.items()}}, tmp_path / "w.pth")
    filled = opened(f"{plain} checkpoint={tmp_path / 'w.pth'}")
    assert all(torch.equal(value, moved[name]) for name, value in filled.module.state_dict().items())
    code = "def g(checkpoint):\n    net = Net(); net.load_state_dict(torch.load(checkpoint)); return usual(net)"
    torch.save(moved, tmp_path / "plain.pth")
    taken = opened(f"{written(tmp_path, code, 'other.py')}:g checkpoint={tmp_path / 'plain.pth'}")
    assert taken.card.weights_digest == filled.card.weights_digest == state_digest(filled.module)
    with pytest.raises(UserError, match=r"none\.pth"):
        opened(f"{plain} checkpoint={tmp_path / 'none.pth'}")


def test_other_code_and_other_neighbours_are_another_identity(tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text("SHIFT = 1\ndef shift(x): return x + SHIFT\n")
    code = "import layers\nclass B(Net):\n    def forward(self, x): return super().forward(layers.shift(x))\n"
    code += "def f(): return usual(B())"
    line = f"{written(tmp_path, code)}:f"

    def digest() -> str:
        return prepare(parse_line(line)[0]).files_digest

    first = digest()
    assert first == digest()
    other = tmp_path / "other"
    other.mkdir()
    (other / "layers.py").write_text("SHIFT = 2\ndef shift(x): return x + SHIFT\n")
    elsewhere = prepare(parse_line(f"{written(other, code)}:f")[0])
    assert elsewhere.files_digest != first
    assert elsewhere.card.name == "mine.py:f"
    written(tmp_path, code + "\n# a comment")
    assert digest() != first


def test_the_same_file_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    code = "def f(): return usual(Net())"
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prepared = prepare(parse_line(f"{written(tmp_path / name, code)}:f id=x")[0])
        found.append((prepared.files_digest, prepared.card.weights_digest, prepared.card.name))
    assert found[0] == found[1]


# ---- features


class Tail(nn.Module):
    """Two linear layers in a row, and one that is called although it changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 6), nn.Linear(6, 5), nn.Conv2d(5, 4, 1)
        self.idle = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        hidden = torch.relu(self.first(pooled))
        logits = self.last(self.second(hidden)[..., None, None]).flatten(1)
        self.idle(hidden)
        return logits


def test_the_final_layer_is_the_last_that_gives_the_logits_back() -> None:
    torch.manual_seed(0)
    module, images = Tail().eval(), torch.randn(2, 3, 8, 8)
    found = find_head(module, images)
    assert found.layer is module.last
    assert found.head.affine
    assert found.head.weight.shape == (4, 5)
    named = find_head(module, images, "second")
    assert named.layer is module.second
    assert not named.head.affine
    for wrong, message in (("thrid", "no layer 'thrid'"), ("", "")):
        if wrong:
            with pytest.raises(UserError, match=message):
                find_head(module, images, wrong)


def test_a_scaled_head_is_marked_and_its_logits_kept(tmp_path: Path) -> None:
    code = "class S(Net):\n    def forward(self, x): return 3 * torch.tanh(super().forward(x))\n"
    code += "def f(): return usual(S(), classes=['a', 'b', 'c'])"
    model = opened(f"{written(tmp_path, code)}:f")
    assert model.card.head_kind == "non-affine"
    out = model.forward(pixels())
    assert out.features.shape == (5, 8)
    assert float(out.logits.abs().max()) <= 3


def test_a_module_without_a_linear_layer_gives_logits_alone(tmp_path: Path) -> None:
    code = "class P(nn.Module):\n    def forward(self, x): return x.mean((2, 3))\ndef f(): return usual(P())"
    model = opened(f"{written(tmp_path, code)}:f")
    out = model.forward(pixels())
    assert out.features is None
    assert out.logits.shape == (5, 3)
    assert model.card.head_kind == "non-affine"


def test_an_encoder_gives_features_alone(tmp_path: Path) -> None:
    code = "def f(): return usual(Net(7), outputs='features')"
    model = opened(f"{written(tmp_path, code)}:f")
    out = model.forward(pixels())
    assert out.logits is None
    assert out.features.shape == (5, 7)
    with pytest.raises(HeadUnavailable, match="only features"):
        model.head(ClassSpace("x", ("a", "b")))


def test_half_precision_has_its_head_in_float32(tmp_path: Path) -> None:
    line = f"{written(tmp_path, 'def f(): return usual(Net())')}:f"
    model = load(prepare(parse_line(line)[0]), precision="bf16")
    out = model.forward(pixels())
    with torch.inference_mode():
        expected = torch.nn.functional.linear(out.features, model.module.head.weight, model.module.head.bias)
    assert out.features.dtype == out.logits.dtype == torch.float32
    assert torch.allclose(out.logits, expected, atol=1e-6)


# ---- zero-shot


ZERO_SHOT = """
class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.words = Net(6), nn.EmbeddingBag(256, 6)
    def forward(self, x): return self.net(x)
    def texts(self, texts):
        device = self.words.weight.device
        return torch.stack([self.words(torch.tensor([list(t.encode())], device=device))[0] for t in texts])
def f():
    pair = Pair()
    return usual(pair, encode_text=pair.texts, logit_scale=20.0, logit_bias=-1.0)
"""


def test_a_text_encoder_makes_a_zero_shot_model(tmp_path: Path) -> None:
    model = opened(f"{written(tmp_path, ZERO_SHOT)}:f")
    assert (model.card.head_kind, model.card.logit_scale, model.card.logit_bias) == ("zero-shot", 20.0, -1.0)
    space = ClassSpace("pets", ("cat", "dog"))
    prompts = prompt_set("photo-1")
    head = model.head(space, prompts)
    features = model.forward(pixels()).features
    with torch.inference_mode():
        texts = [prompts.templates[0].replace("{}", name) for name in space.names]
        rows = nn.functional.normalize(model.module.texts(texts), dim=-1)
        expected = 20 * nn.functional.normalize(features, dim=-1) @ rows.T - 1
    np.testing.assert_allclose(head.logits(features.numpy()), expected.numpy(), atol=1e-5)


# ---- preprocessing


def test_the_line_wins_over_the_function(tmp_path: Path) -> None:
    line = f"{written(tmp_path, 'def f(): return usual(Net())')}:f"
    prepared = prepare(parse_line(f"{line} input_size=48 mean=0.1,0.2,0.3 resize_mode=shortest crop_pct=0.5")[0])
    geometry = prepared.preprocessing.geometry
    assert (geometry.crop, geometry.resize, geometry.resize_mode) == ((48, 48), (96, 96), "shortest")
    assert prepared.preprocessing.mean == (0.1, 0.2, 0.3)
    assert prepared.preprocessing.std == (0.5, 0.5, 0.5)


# ---- mistakes


WRONG = {
    "no function": ("def f(): pass", "g", "has no function 'g'"),
    "nothing returned": ("def f(): pass", "f", "returns NoneType"),
    "another key": ("def f(): return {'module': Net(), 'clases': []}", "f", "'clases'; did you mean classes"),
    "no module": ("def f(): return {}", "f", "without the key 'module'"),
    "code that fails": ("def f(): return undefined", "f", "NameError"),
    "a file that fails": ("import no_such_package_here\ndef f(): pass", "f", "importing .*no_such_package_here"),
    "code that exits": ("import sys\ndef f(): sys.exit(3)", "f", "SystemExit"),
    "no preprocessing": ("def f(): return Net()", "f", "nothing says how .* sees images"),
    "names of another number": ("def f(): return usual(Net(), classes=['a'])", "f", "3 outputs and 1 class names"),
    "another input": (
        "def f():\n    n = Net(); n.stem = nn.Conv2d(2, 8, 8); return usual(n)", "f", "cannot run on an image"),
    "a map of features": ("def f(): return usual(Net().stem)", "f", r"a classifier returns \(images, classes\)"),
    "texts without a scale": ("def f(): return usual(Net(), encode_text=print)", "f", "without logit_scale"),
    "NaN": ("def f():\n    n = Net(); n.head.weight.data[0] = float('nan'); return usual(n)", "f", "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_cost_a_line(case: str, tmp_path: Path) -> None:
    code, name, message = WRONG[case]
    with pytest.raises(UserError, match=message) as caught:
        prepare(parse_line(f"{written(tmp_path, code)}:{name}", "models.txt:1")[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py", "neither FILE.py:function"),
        ("none.py:f", "there is no file"),
        ("a/b:f", "neither a file"),
        ("m:1", "neither FILE"),
    ],
)
def test_lines_that_name_no_function(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse_line(f"python:{name}", "models.txt:1", tmp_path)


def test_reading_a_list_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    assert parse_line("python:evil.py:f", folder=tmp_path)[0].name == f"{tmp_path / 'evil.py'}:f"


def test_a_module_by_name() -> None:
    line = "python:torchvision.models:squeezenet1_1 input_size=64 mean=0.5 std=0.5 interpolation=bicubic"
    line += " resize_mode=squash"
    prepared = prepare(parse_line(line)[0])
    assert prepared.card.class_space == "imagenet-1k"
    assert prepared.card.id == "torchvision.models:squeezenet1_1"


# ---- the whole command


def test_the_example_runs_as_a_command(tmp_path: Path, run_extract: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("down", "across", "plain"):
        (tmp_path / "stripes" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(
                tmp_path / "stripes" / name / f"{index}.png"
            )
    (tmp_path / "models.txt").write_text(f"{EXAMPLE} id=stripes\n")
    words = ["--model-list", "models.txt", "--dataset", "stripes=stripes", "--workers", 0, "--device", "cpu"]
    run_extract(*words, "--cache", "cache", "--batch-size", 4, cwd=tmp_path)
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores("predictions")
    (head,) = cache_schema.open_cache(tmp_path / "cache").stores("head")
    model = opened(EXAMPLE)
    by_name = {image: row for row, image in enumerate(store.image_ids)}
    order = [model.card.extra["n_classes"] and ["across", "down", "plain"].index(name) for name in head.class_names]
    for image, row in by_name.items():
        picture = Image.open(tmp_path / "stripes" / image).convert("RGB")
        shaped = torch.from_numpy(model.preprocessing.geometry(picture).copy())[None]
        theirs = model.module(Normalizer(model.preprocessing, torch.device("cpu"))(shaped))[0].detach().numpy()
        np.testing.assert_allclose(store.logits()[row], theirs[order], atol=2e-3)
    assert store.features().shape == (9, 32)
    again = run_extract(*words, "--cache", "cache", cwd=tmp_path)
    assert "sealed" in (again.stdout + again.stderr) or "nothing" in (again.stdout + again.stderr)
