"""timm models: checkpoints of every kind, the hub offline, precision, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from closerlook_common.errors import UserError
from extract.classes.spaces import ClassSpace, class_space
from extract.libraries import load, prepare
from extract.libraries.timm.model import TimmModel
from extract.models import weights
from extract.models.base import HeadUnavailable, LoadedModel, WeightsUnavailable
from extract.models.spec import ModelSpec
from extract.zoo.model_list import parse_line

SIDE = 160
BIRDS = ClassSpace("birds", tuple("abcdefg"))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights, "_unreachable_until", 0.0)


@pytest.fixture(scope="module")
def reference() -> Any:
    """A tiny transformer with seven classes, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model("test_vit", num_classes=7)
        with torch.no_grad():
            model.head.weight.normal_()
            model.head.bias.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8))


def spec(line: str) -> ModelSpec:
    return parse_line(line, "models.txt:1")[0]


def opened(line: str, precision: str = "fp32") -> LoadedModel:
    return load(prepare(spec(line)), precision=precision)


def logits_of(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return what the library's own pipeline gives for images that need no resizing."""
    config = resolve_model_data_config(model, use_test_size=True) | {"crop_pct": 1.0}
    transform = create_transform(**config, is_training=False)
    with torch.inference_mode():
        return model(torch.stack([transform(Image.fromarray(image.numpy())) for image in pixels]))


def save_wrapped(model: Any, path: Path) -> None:
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)


def save_old(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


SAVERS = {
    "w.safetensors": lambda model, path: save_file(model.state_dict(), path),
    "wrapped.pth": save_wrapped,
    "old.pt": save_old,
}


@pytest.mark.parametrize("name", SAVERS)
def test_local_checkpoints_load_exactly(name: str, tmp_path: Path, reference: Any, pixels: torch.Tensor) -> None:
    SAVERS[name](reference, tmp_path / name)
    line = f"timm:test_vit checkpoint={tmp_path / name} classes=birds id=mine crop_pct=1"
    prepared = prepare(spec(line))
    assert prepared.card.extra["n_classes"] == 7
    assert prepared.card.class_space == "birds"
    assert prepared.weights == tmp_path / name
    model = load(prepared)
    out = model.forward(pixels)
    assert out.logits is not None
    assert torch.equal(out.logits, logits_of(reference, pixels))
    assert model.card.weights_digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert model.card.parameters == sum(p.numel() for p in reference.parameters())
    assert (model.card.feature_width, model.card.head_kind, model.card.tag) == (64, "linear", "")
    head = model.head(BIRDS)
    np.testing.assert_array_equal(head.weight, reference.head.weight.detach().numpy())
    np.testing.assert_array_equal(head.bias, reference.head.bias.detach().numpy())
    assert head.class_names == BIRDS.names


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path, reference: Any) -> None:
    path = tmp_path / "w.safetensors"
    save_file(reference.state_dict(), path)
    line = f"timm:test_vit checkpoint={path}"
    assert prepare(spec(line)).card.weights_digest == ""
    digest = opened(line).card.weights_digest
    assert prepare(spec(line)).card.weights_digest == digest
    changed = {**reference.state_dict(), "head.bias": reference.head.bias.detach() + 1}
    save_file(changed, path)
    assert prepare(spec(line)).card.weights_digest == ""
    assert opened(line).card.weights_digest not in ("", digest)


def test_class_spaces_that_do_not_fit_are_refused(tmp_path: Path, reference: Any) -> None:
    save_file(reference.state_dict(), tmp_path / "w.safetensors")
    unnamed = opened(f"timm:test_vit checkpoint={tmp_path / 'w.safetensors'}")
    with pytest.raises(HeadUnavailable, match="7 classes without names"):
        unnamed.head(class_space("imagenet-1k"))
    named = opened(f"timm:test_vit checkpoint={tmp_path / 'w.safetensors'} classes=birds")
    with pytest.raises(HeadUnavailable, match="answers in birds, not in imagenet-1k"):
        named.head(class_space("imagenet-1k"))
    with pytest.raises(HeadUnavailable, match="has 7 classes, birds has 2"):
        named.head(ClassSpace("birds", ("a", "b")))
    with pytest.raises(HeadUnavailable, match="no text tower"):
        named.encode_texts(["a bird"])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, reference: Any) -> None:
    state = reference.state_dict()
    cases: dict[str, Any] = {
        "other.safetensors": timm.create_model("test_resnet").state_dict(),
        "short.safetensors": {k: v for k, v in state.items() if k != "blocks.0.attn.qkv.weight"},
    }
    for name, content in cases.items():
        save_file(content, tmp_path / name)
        with pytest.raises(UserError, match=name) as caught:
            opened(f"timm:test_vit checkpoint={tmp_path / name} id=mine")
        assert str(caught.value).startswith("mine: ")
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        opened(f"timm:test_vit checkpoint={tmp_path / 'cut.safetensors'}")
    with pytest.raises(UserError, match="no such file"):
        opened(f"timm:test_vit checkpoint={tmp_path / 'none.pth'}")
    with pytest.raises(UserError, match="is a folder"):
        opened(f"timm:test_vit checkpoint={tmp_path}")


def test_missing_weights_are_refused_where_timm_only_logs_them(tmp_path: Path) -> None:
    """Some architectures load without strictness; DLA is one."""
    state = timm.create_model("dla46x_c").state_dict()
    del state["level5.project.0.weight"]
    save_file(state, tmp_path / "dla.safetensors")
    with pytest.raises(UserError, match=r"does not hold all weights of dla46x_c.*level5\.project\.0\.weight"):
        opened(f"timm:dla46x_c checkpoint={tmp_path / 'dla.safetensors'}")


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.mkdir, (Path("exploded"),)  # type: ignore[return-value]


def test_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Bomb(), protocol=2))
    for name in ("bomb.pth", "plain.pth"):
        with pytest.raises(UserError, match=r"cannot be used: it holds more than tensors \(builtins\."):
            opened(f"timm:test_vit checkpoint={tmp_path / name}")
    assert not (tmp_path / "exploded").exists()


def test_offline_the_model_and_the_remedy_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(spec("timm:test_vit.r160_in1k"))
    assert (prepared.weights, prepared.card.weights_digest) == (None, "")
    with pytest.raises(WeightsUnavailable, match=r"^test_vit\.r160_in1k: .*checkpoint=FILE.*hub cache"):
        load(prepared)
    asked: list[bool] = []

    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        asked.append(local_files_only)
        raise FileNotFoundError("nothing")

    # Having failed once, the hub is not waited for again.
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(WeightsUnavailable):
        load(prepared)
    assert asked == [True]


def test_the_hub_cache_is_used_without_network(tmp_path: Path, pixels: torch.Tensor) -> None:
    snapshot = tmp_path / "hub" / "models--timm--test_vit.r160_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = timm.create_model("test_vit").eval()
    save_file(model.state_dict(), snapshot / "model.safetensors")
    prepared = prepare(spec("timm:test_vit.r160_in1k crop_pct=1"))
    assert prepared.weights is not None
    out = load(prepared).forward(pixels)
    assert out.logits is not None
    assert torch.equal(out.logits, logits_of(model, pixels))
    assert prepared.card.tag == "r160_in1k"
    assert prepared.card.licence == "apache-2.0"
    assert prepared.card.class_space == "imagenet-1k"


def test_a_folder_saved_by_timm(tmp_path: Path, reference: Any, pixels: torch.Tensor) -> None:
    folder = tmp_path / "saved"
    timm.models.save_for_hf(reference, str(folder), safe_serialization=True)
    model = opened(f"timm:local-dir:{folder} classes=birds crop_pct=1")
    out = model.forward(pixels)
    assert out.logits is not None
    assert torch.equal(out.logits, logits_of(reference, pixels))
    assert model.card.id == "saved"
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights in .*saved"):
        prepare(spec(f"timm:local-dir:{folder}"))
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vt", "pretrained_cfg": {}}))
    with pytest.raises(UserError, match="did you mean test_vit"):
        prepare(spec(f"timm:local-dir:{folder}"))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read: no such file"):
        prepare(spec(f"timm:local-dir:{folder}"))


def test_another_input_size_is_converted_as_timm_converts_it(
    tmp_path: Path, reference: Any, pixels: torch.Tensor
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(reference.state_dict(), path)
    small = pixels[:, :96, :96]
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 7}, img_size=96
    ).eval()
    assert theirs.pos_embed.shape != reference.pos_embed.shape
    model = opened(f"timm:test_vit checkpoint={path} input_size=96 crop_pct=1")
    out = model.forward(small)
    assert out.logits is not None
    config = resolve_model_data_config(reference) | {"input_size": (3, 96, 96), "crop_pct": 1.0}
    transform = create_transform(**config, is_training=False)
    with torch.inference_mode():
        expected = theirs(torch.stack([transform(Image.fromarray(image.numpy())) for image in small]))
    assert torch.equal(out.logits, expected)


def test_precision_moves_the_body_only(pixels: torch.Tensor) -> None:
    line = "timm:test_vit allow_random=yes"
    exact, half = opened(line), opened(line, "bf16")
    a, b = exact.forward(pixels), half.forward(pixels)
    assert a.logits is not None
    assert b.logits is not None
    assert b.features.dtype == b.logits.dtype == torch.float32
    assert not torch.equal(a.features, b.features)
    assert float((a.features - b.features).abs().max()) < 0.05 * float(a.features.abs().max())
    # Features and logits of one forward belong together, whatever the precision.
    assert half.head(class_space("imagenet-1k")).residual < 1e-6
    assert opened(f"{line} precision=bf16").precision == "bf16"
    with pytest.raises(UserError, match="did you mean fp32"):
        opened(line, "fp23")


def test_batches_change_nothing_but_float_noise(pixels: torch.Tensor) -> None:
    model = opened("timm:test_vit allow_random=yes")
    whole = model.forward(pixels)
    single = torch.cat([model.forward(pixels[i : i + 1]).features for i in range(len(pixels))])
    torch.testing.assert_close(single, whole.features, rtol=1e-5, atol=1e-6)
    channels_first = model.forward(pixels.permute(0, 3, 1, 2))
    assert torch.equal(channels_first.features, whole.features)


def test_random_weights_are_asked_for_and_reported() -> None:
    nameless = next(n for n in timm.list_models() if not timm.models.is_model_pretrained(n))
    with pytest.raises(WeightsUnavailable, match="has no published weights: give checkpoint=FILE"):
        prepare(spec(f"timm:{nameless}"))
    prepared = prepare(spec("timm:test_vit allow_random=yes seed=4"))
    assert prepared.card.extra["random_weights"] is True
    assert prepared.card.weights_digest == "random-4"
    assert prepared.card.licence == "unknown"
    pairs = [load(prepared).head(class_space("imagenet-1k")).weight for _ in range(2)]
    np.testing.assert_array_equal(*pairs)
    other = load(prepare(spec("timm:test_vit allow_random=yes")))
    assert not np.array_equal(pairs[0], other.head(class_space("imagenet-1k")).weight)


def test_a_tower_without_a_classifier_gives_features(pixels: torch.Tensor) -> None:
    model = opened("timm:test_vit allow_random=yes num_classes=0")
    out = model.forward(pixels)
    assert out.logits is None
    assert out.features.shape == (3, 64)
    with pytest.raises(HeadUnavailable, match="no classifier"):
        model.head(class_space("imagenet-1k"))


def test_preparing_hundreds_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(timm, "create_model", refuse)
    prepared = [prepare(s) for s in parse_line("timm:resnet*")]
    assert len(prepared) > 100
    assert all(p.card.input_size and p.card.preprocessing["mean"] for p in prepared)


def test_what_the_line_says_wins() -> None:
    prepared = prepare(spec(
        "timm:resnet50.a1_in1k group=more-data source=mine samples_seen=5e6 licence=mit family=mlp"
        " mean=0.5 std=0.25,0.5,0.75 interpolation=bilinear resize_mode=squash crop_pct=0.5 input_size=64"
    ))  # fmt: skip
    card = prepared.card
    assert (card.group, card.source, card.samples_seen, card.licence, card.family) == (
        "more-data", "mine", 5_000_000, "mit", "mlp"
    )  # fmt: skip
    assert card.preprocessing == {
        "resize_mode": "squash", "resize": [128, 128], "crop": [64, 64], "interpolation": "bilinear",
        "fill": [0, 0, 0], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.75],
    }  # fmt: skip
    with pytest.raises(UserError, match="did you mean squash"):
        prepare(spec("timm:resnet50.a1_in1k resize_mode=squish"))


def test_a_released_model_holds_nothing(pixels: torch.Tensor) -> None:
    model = opened("timm:test_vit allow_random=yes")
    assert isinstance(model, TimmModel)
    assert model.weight_bytes() >= 4 * (model.card.parameters or 0)
    model.release()
    assert model.card.id == "test_vit"
    with pytest.raises(AttributeError):
        model.forward(pixels)


def test_half_precision_files_load(tmp_path: Path, reference: Any) -> None:
    save_file({k: v.half() for k, v in reference.state_dict().items()}, tmp_path / "h.safetensors")
    head = opened(f"timm:test_vit checkpoint={tmp_path / 'h.safetensors'} classes=birds").head(BIRDS)
    stored = load_file(tmp_path / "h.safetensors")["head.weight"].float().numpy()
    np.testing.assert_array_equal(head.weight, stored)
