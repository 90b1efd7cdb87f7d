"""Training checkpoints as people have them: wrapped, prefixed, averaged, twice in one file, or something else."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from closerlook_common.errors import UserError
from extract.libraries import load, prepare
from extract.zoo.model_list import parse_line

State = dict[str, torch.Tensor]
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def _model(seed: int, n_classes: int = 5) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model("test_resnet", num_classes=n_classes).eval()


@pytest.fixture(scope="module")
def weights() -> State:
    return _model(1).state_dict()


@pytest.fixture(scope="module")
def average() -> State:
    return _model(2).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "data parallel": lambda s: {"state_dict": under("module.", s), "epoch": 3, "optimizer": {"lr": 0.1}},
    "tutorial": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"param_groups": []}, "epoch": 3},
    "lightning": lambda s: {
        "state_dict": {**under("model.", s), "criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.4",
    },
    "lightning and compiled": lambda s: {"state_dict": under("model._orig_mod.", s)},
    "net": lambda s: {"net": s, "acc": 91.3, "args": Namespace(lr=0.1)},
    "deep": lambda s: {"algorithm": {"networks": {"classifier": under("module.", s)}}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_however_they_were_saved(wrapping: str, tmp_path: Path, weights: State) -> None:
    torch.save(WRAPPINGS[wrapping](weights), tmp_path / "w.pth")
    model = opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x")
    assert model.card.extra["n_classes"] == 5
    same(model.module, weights)


@pytest.mark.parametrize(
    "names",
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model_state_dict", "ema_state_dict"), ("net", "ema")],
)
def test_an_average_is_taken_unless_the_line_says_no(
    names: tuple[str, str], tmp_path: Path, weights: State, average: State
) -> None:
    torch.save({names[0]: weights, names[1]: under("module.", average)}, tmp_path / "w.pth")
    line = f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x"
    same(opened(line).module, average)
    same(opened(f"{line} ema=yes").module, average)
    same(opened(f"{line} ema=no").module, weights)


def test_the_choice_is_part_of_the_stores_identity(tmp_path: Path, weights: State) -> None:
    from extract.planning.jobs import _architecture

    torch.save({"model": weights, "model_ema": weights}, tmp_path / "w.pth")
    line = f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x"
    plain, other = (prepare(parse_line(text, "models.txt:1")[0]) for text in (line, f"{line} ema=no"))
    assert _architecture(plain) != _architecture(other)


def test_two_sets_of_weights_are_asked_about(tmp_path: Path, weights: State, average: State) -> None:
    torch.save({"state_dict": {**under("student.", weights), **under("teacher.", average)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"several sets.*student, .*teacher\): save one of them alone"):
        opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine num_classes=5")


CONTENTS: dict[str, tuple[Callable[[State], Any], str]] = {
    "backbone": (
        lambda s: {k: v for k, v in s.items() if not k.startswith("fc.")},
        r"2 of 92 tensors are missing \(fc\.weight, fc\.bias\); a backbone without its classifier",
    ),
    "other width": (
        lambda s: {**s, "fc.weight": torch.zeros(5, 9)},
        r"1 have other shapes \(fc\.weight is \(5, 9\) there",
    ),
    "another model": (
        lambda s: timm.create_model("test_vit", num_classes=5).state_dict(),
        r"none of its 80 tensors \(cls_token, pos_embed \.\.\.\) .* of another architecture\?",
    ),
    "no tensors": (lambda s: {"epoch": 3, "note": "none"}, "it holds no tensors but epoch, note"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_does_not_fit_is_said_in_one_line(content: str, tmp_path: Path, weights: State) -> None:
    build, says = CONTENTS[content]
    torch.save(build(weights), tmp_path / "w.pth")
    with pytest.raises(UserError, match=says) as caught:
        opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine num_classes=5")
    assert str(caught.value).startswith("mine: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        ("<html>404</html>", r"not a weight file, it begins with '<html>404"),
    ],
)
def test_a_file_that_is_no_checkpoint(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text(text)
    with pytest.raises(UserError, match=says):
        opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'}")


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_open_clip_weights_are_found_too(wrapping: str, tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(CLIP))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = open_clip.CLIP(**CLIP).state_dict()
    state["logit_scale"] = torch.tensor(3.0)
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "w.pt")
    model = opened(f"open_clip:mine config={tmp_path / 'clip.json'} checkpoint={tmp_path / 'w.pt'}")
    same(model.module, state)


def test_a_safetensors_file_with_a_prefix(tmp_path: Path, weights: State) -> None:
    save_file(under("model.", weights), tmp_path / "w.safetensors")
    same(opened(f"timm:test_resnet checkpoint={tmp_path / 'w.safetensors'} classes=x").module, weights)


def opened(line: str) -> Any:
    return load(prepare(parse_line(line, "models.txt:1")[0]))


def same(module: Any, state: State) -> None:
    own = module.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], state[name]) for name in state)


def test_a_misspelt_file_is_answered_with_the_nearest(tmp_path: Path, weights: State) -> None:
    torch.save(weights, tmp_path / "run-12.pth")
    with pytest.raises(UserError, match=r"run-21\.pth cannot be read: no such file; did you mean run-12\.pth\?"):
        opened(f"timm:test_resnet checkpoint={tmp_path / 'run-21.pth'}")


# ---- what training scripts leave beside the weights, and weights that are no numbers


class _Mine:
    """A class of the training script."""


def beside(tmp_path: Path) -> dict[str, Any]:
    """Return what training scripts save beside the weights, harmless all of it."""
    rates: defaultdict[str, list[float]] = defaultdict(list)
    rates["lr"].append(0.1)
    return {
        "best": np.float64(81.5), "epoch": np.int64(3), "history": np.arange(6.0).reshape(2, 3), "flag": np.bool_(True),
        "rates": rates, "recent": deque([1, 2], maxlen=5), "path": tmp_path / "runs", "version": torch.__version__,
        "args": Namespace(lr=0.1, out=tmp_path), "when": datetime(2026, 1, 2, tzinfo=UTC), "took": timedelta(3),
        "rng": np.random.default_rng(0).bit_generator.state, "seen": {1, 2}, "size": torch.Size([3]),
        "type": np.dtype("f4"),
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_weights_are_found_beside_what_a_training_script_saves(
    library: str, zipped: bool, tmp_path: Path, weights: State
) -> None:
    if library == "open_clip":
        (tmp_path / "clip.json").write_text(json.dumps(CLIP))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            weights = open_clip.CLIP(**CLIP).state_dict()
    content = {"model": weights, **beside(tmp_path)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    line = {
        "timm": "timm:test_resnet id=mine classes=x",
        "open_clip": f"open_clip:mine config={tmp_path / 'clip.json'}",
    }[library]
    same(opened(f"{line} checkpoint={tmp_path / 'w.pth'}").module, weights)


def test_weights_in_a_defaultdict_are_found(tmp_path: Path, weights: State) -> None:
    found: defaultdict[str, Any] = defaultdict(dict)
    found["net"] = OrderedDict(weights)
    torch.save(found, tmp_path / "w.pth")
    same(opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x").module, weights)


def test_what_timms_own_saver_leaves(tmp_path: Path) -> None:
    from timm.utils import CheckpointSaver, ModelEmaV3

    model = _model(4)
    average = ModelEmaV3(model)
    average.module.load_state_dict(_model(5).state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(
        model, optimizer, args=Namespace(model="test_resnet"), model_ema=average, checkpoint_dir=str(tmp_path)
    )
    saver.save_checkpoint(0, metric=np.float64(71.5))
    saver.save_checkpoint(1, metric=np.float64(72.5))
    line = f"timm:test_resnet checkpoint={tmp_path / 'model_best.pth.tar'} id=mine classes=x"
    same(opened(line).module, average.module.state_dict())
    same(opened(f"{line} ema=no").module, model.state_dict())


def test_a_class_of_the_training_script_is_named(tmp_path: Path, weights: State) -> None:
    for zipped in (True, False):
        torch.save({"model": weights, "best": _Mine()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            UserError, match=r"it holds more than tensors \(\S*_Mine\), .*save model.state_dict\(\) alone"
        ):
            opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x")


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "fc.weight"), (float("inf"), "fc.weight")])
def test_weights_that_are_no_numbers_are_named(value: float, shown: str, tmp_path: Path, weights: State) -> None:
    spoilt = {**weights, "fc.weight": weights["fc.weight"].clone()}
    spoilt["fc.weight"][1, 2] = value
    torch.save(spoilt, tmp_path / "w.pth")
    total = spoilt["fc.weight"].numel()
    with pytest.raises(
        UserError, match=rf"^mine: 1 of the {total:,} values of its tensor {shown} are NaN or infinite: "
    ):
        opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x")


def test_several_tensors_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(CLIP))
    state = open_clip.CLIP(**CLIP).state_dict()
    state["visual.proj"] = torch.full_like(state["visual.proj"], torch.nan)
    state["ln_final.bias"] = torch.full_like(state["ln_final.bias"], torch.nan)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"values of its tensor visual\.proj are NaN or infinite, and 1 more tensors"):
        opened(f"open_clip:mine config={tmp_path / 'clip.json'} checkpoint={tmp_path / 'w.pt'}")


def test_finite_weights_that_overflow_are_one_line(tmp_path: Path, weights: State) -> None:
    torch.save({**weights, "fc.weight": torch.full_like(weights["fc.weight"], 3e38)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="mine: its logits of an image of noise are NaN or infinite"):
        opened(f"timm:test_resnet checkpoint={tmp_path / 'w.pth'} id=mine classes=x")
