"""torchvision's classifiers: numbers and pixels are torchvision's own, whoever's weights they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import get_model, get_model_weights

from closerlook_common.errors import UserError
from extract.libraries import load, prepare, registry
from extract.libraries.torchvision.names import published
from extract.models.base import WeightsUnavailable
from extract.models.heads import affine_map
from extract.models.pixels import Normalizer
from extract.models.torch_hub import hub_file
from extract.models.transforms import images_of_noise, preprocessing_of
from extract.zoo.model_list import parse_line


def opened(line: str) -> Any:
    return load(prepare(parse_line(line, "models.txt:1")[0]))


def pixels(size: int, n: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_every_published_transform_is_read_bit_for_bit() -> None:
    seen = {}
    for name in published():
        architecture, _, tag = name.partition(".")
        transform = get_model_weights(architecture)[tag].transforms()
        seen.setdefault(repr(transform), transform)
    assert len(seen) > 15
    for transform in seen.values():
        found = preprocessing_of(transform)  # compares with the transform itself
        image = Image.effect_mandelbrot((301, 223), (-2, -1, 1, 1), 50).convert("RGB")
        ours = Normalizer(found, torch.device("cpu"))(torch.from_numpy(found.geometry(image).copy())[None])[0]
        assert torch.equal(ours, transform(image))
    assert images_of_noise()


# One of each construction: plain, transformer whose size follows the weights, and one that normalises once more.
@pytest.mark.parametrize("name", ["squeezenet1_1.IMAGENET1K_V1", "mobilenet_v3_small.IMAGENET1K_V1"])
def test_torchvisions_own_weights_give_its_own_numbers(name: str, hub: Path) -> None:
    architecture, _, tag = name.partition(".")
    weights = get_model_weights(architecture)[tag]
    torch.manual_seed(3)
    torch.save(get_model(architecture, weights=None).state_dict(), hub_file(weights.url))
    prepared = prepare(parse_line(f"torchvision:{name}")[0])
    assert (prepared.card.tag, prepared.card.class_space, prepared.card.group) == (
        tag,
        "imagenet-1k",
        "supervised-in1k",
    )
    model = load(prepared)
    theirs = get_model(architecture, weights=weights).eval()  # from the same file of torch's cache
    images = [Image.fromarray(image.numpy()) for image in pixels(260)]
    batch = torch.stack([weights.transforms()(image) for image in images])
    ours = torch.stack([torch.from_numpy(model.preprocessing.geometry(image).copy()) for image in images])
    with torch.inference_mode():
        expected = theirs(batch)
    assert torch.equal(model.forward(ours).logits, expected)


def test_the_default_weights_and_named_ones_are_the_same_model() -> None:
    default = get_model_weights("resnet50").DEFAULT.name
    assert parse_line("torchvision:resnet50")[0].name == f"resnet50.{default}"
    named, optioned = (
        parse_line(line)[0]
        for line in ("torchvision:resnet50.IMAGENET1K_V1", "torchvision:resnet50 weights=IMAGENET1K_V1")
    )
    assert named.name == optioned.name
    assert len(parse_line("torchvision:resnet50.*")) == 2


def test_own_weights_of_own_classes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = get_model("resnet18", weights=None, num_classes=5).eval()
    torch.save({"model": {f"module.{k}": v for k, v in theirs.state_dict().items()}, "epoch": 3}, tmp_path / "w.pth")
    model = opened(f"torchvision:resnet18 checkpoint={tmp_path / 'w.pth'} classes=pets id=mine")
    assert (model.card.class_space, model.card.extra["n_classes"], model.card.group) == ("pets", 5, "unknown")
    assert model.preprocessing == preprocessing_of(get_model_weights("resnet18").DEFAULT.transforms())
    out = model.forward(pixels(224))
    normalized = Normalizer(model.preprocessing, torch.device("cpu"))(pixels(224))
    with torch.inference_mode():
        assert torch.equal(out.logits, theirs(normalized))
    weight, bias = (torch.from_numpy(part).float() for part in affine_map(theirs.fc))
    assert torch.allclose(out.features @ weight.T + bias, out.logits, atol=1e-4)


def test_own_weights_say_like_whose_they_see_images(tmp_path: Path) -> None:
    torch.save(get_model("mobilenet_v2", weights=None, num_classes=3).state_dict(), tmp_path / "w.pth")
    line = f"torchvision:mobilenet_v2 checkpoint={tmp_path / 'w.pth'} classes=pets"
    with pytest.raises(UserError, match="use different preprocessing; name those"):
        prepare(parse_line(line)[0])
    one, two = (prepare(parse_line(f"{line} weights=IMAGENET1K_V{n}")[0]) for n in (1, 2))
    assert one.preprocessing.geometry.resize == (256, 256)
    assert two.preprocessing.geometry.resize == (232, 232)
    text = "weights=none input_size=96 mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash"
    assert prepare(parse_line(f"{line} {text}")[0]).preprocessing.geometry.crop == (96, 96)
    with pytest.raises(UserError, match="nothing says how"):
        prepare(parse_line(f"{line} weights=none")[0])


@pytest.mark.slow
@pytest.mark.parametrize("auxiliary", [True, False])
def test_models_that_normalise_once_more_ask_what_they_were_trained_from(auxiliary: bool, tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = get_model("googlenet", weights=None, num_classes=4, init_weights=False, aux_logits=auxiliary).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    line = f"torchvision:googlenet checkpoint={tmp_path / 'w.pth'} classes=pets"
    with pytest.raises(UserError, match="weights=none where"):
        opened(line)
    normalized = Normalizer(prepare(parse_line(line)[0]).preprocessing, torch.device("cpu"))(pixels(224))
    text = "weights=none input_size=224 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 interpolation=bilinear"
    text += " resize_mode=shortest"
    for options, transform in ((text, False), ("weights=IMAGENET1K_V1", True)):
        theirs.transform_input = transform
        with torch.inference_mode():
            assert torch.equal(opened(f"{line} {options}").forward(pixels(224)).logits, theirs(normalized))


@pytest.mark.slow
def test_a_transformer_takes_the_size_of_its_images() -> None:
    model = opened("torchvision:vit_b_16 allow_random=yes input_size=64 num_classes=3 classes=pets")
    out = model.forward(pixels(64))
    assert out.features.shape == (3, 768)
    assert model.card.head_kind == "linear"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["alexnet", "densenet121", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf", "squeezenet1_0", "swin_t"],
)
def test_a_head_is_found_in_every_family(name: str) -> None:
    model = opened(f"torchvision:{name} allow_random=yes num_classes=7 classes=pets input_size=96")
    out = model.forward(pixels(96))
    assert out.logits.shape == (3, 7)
    # SqueezeNet classifies every place and averages after a ReLU: no affine head
    assert model.card.head_kind == ("non-affine" if name.startswith("squeeze") else "linear")


def test_missing_weights_are_unavailable(hub: Path) -> None:
    prepared = prepare(parse_line("torchvision:alexnet")[0])
    assert prepared.weights is None
    assert prepared.card.weights_digest == ""
    with pytest.raises(WeightsUnavailable, match="checkpoint=FILE"):
        load(prepared)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resnt50", "no classifier 'resnt50'.*did you mean"),
        ("resnet50.IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'; did you mean IMAGENET1K_V"),
        ("resnet50.IMAGENET1K_V1 weights=IMAGENET1K_V2", "names two sets of weights"),
        ("resnet50.IMAGENET1K_V1 checkpoint=x.pth", "write torchvision:resnet50 weights=IMAGENET1K_V1"),
        ("resnet50 weights=none", "goes with checkpoint"),
        ("vgg16.IMAGENET1K_FEATURES", "no weights 'IMAGENET1K_FEATURES'"),
        ("fasterrcnn_resnet50_fpn", "no classifier"),
        ("resnet* weights=IMAGENET1K_V1", "weights= is for one model"),
    ],
)
def test_mistakes_are_answered(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_line(f"torchvision:{line}", "models.txt:1")
    assert str(caught.value).startswith("models.txt:1: ")


def test_every_classifier_is_listed() -> None:
    entries = list(registry.get("torchvision").entries())
    assert {entry.architecture for entry in entries} == set(torchvision.models.list_models(module=torchvision.models))
    assert all(entry.input_size and entry.card["source"] != "unknown" for entry in entries)
