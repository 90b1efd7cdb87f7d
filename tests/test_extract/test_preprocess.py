"""Pixels and normalised inputs equal those of timm's and open_clip's own transforms, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_clip.pretrained import get_pretrained_cfg as open_clip_entry
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from closerlook_common.errors import UserError
from extract.libraries.open_clip.preprocessing import from_open_clip
from extract.libraries.timm.preprocessing import from_timm
from extract.models.pixels import Normalizer
from extract.preprocess import Geometry, Preprocessing

SIZES = [(90, 61), (61, 90), (64, 64), (7, 9), (40, 200), (33, 31)]
"""Width and height: wide, tall, square, smaller than the crop, narrow, odd."""


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def normalised(preprocessing: Preprocessing, image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(preprocessing.geometry(image).copy())[None]
    return Normalizer(preprocessing, torch.device("cpu"))(pixels)[0]


def timm_config(**changes: Any) -> dict[str, Any]:
    config = {"input_size": (3, 48, 48), "interpolation": "bicubic", "mean": (0.485, 0.456, 0.406)}
    return config | {"std": (0.229, 0.224, 0.225), "crop_pct": 0.875, "crop_mode": "center"} | changes


TIMM_CASES = {
    "centre crop": timm_config(),
    "nothing cropped": timm_config(crop_pct=1.0),
    "bilinear": timm_config(interpolation="bilinear", crop_pct=0.95),
    "squash": timm_config(crop_mode="squash", crop_pct=1.0),
    "squash and crop": timm_config(crop_mode="squash", crop_pct=0.9),
    "border": timm_config(crop_mode="border", crop_pct=1.0),
    "border and crop": timm_config(crop_mode="border", crop_pct=0.8),
    "resized below the crop": timm_config(crop_pct=1.2),
    "not square": timm_config(input_size=(3, 32, 48)),
    "lanczos": timm_config(interpolation="lanczos"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", TIMM_CASES)
def test_pixels_equal_those_of_timm(case: str, size: tuple[int, int]) -> None:
    config, image = TIMM_CASES[case], picture(*size)
    ours = from_timm(config)
    theirs = create_transform(**config, is_training=False, normalize=False)(image)
    np.testing.assert_array_equal(ours.geometry(image), theirs.permute(1, 2, 0).numpy())
    assert torch.equal(normalised(ours, image), create_transform(**config, is_training=False)(image))


OPEN_CLIP_CASES = {
    "shortest": PreprocessCfg(size=48),
    "shortest bilinear": PreprocessCfg(size=(48, 48), interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3),
    "squash": PreprocessCfg(size=48, resize_mode="squash", mean=(0.5,) * 3, std=(0.5,) * 3),
    "longest": PreprocessCfg(size=48, resize_mode="longest"),
    "longest, filled": PreprocessCfg(size=48, resize_mode="longest", fill_color=127),
    "not square": PreprocessCfg(size=(32, 48), interpolation="bilinear"),
    "random is bicubic": PreprocessCfg(size=48, interpolation="random"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", OPEN_CLIP_CASES)
def test_inputs_equal_those_of_open_clip(case: str, size: tuple[int, int]) -> None:
    config, image = OPEN_CLIP_CASES[case], picture(*size)
    theirs = image_transform_v2(config, is_train=False)(image)
    assert torch.equal(normalised(from_open_clip(vars(config)), image), theirs)


@settings(max_examples=60)
@given(
    width=st.integers(3, 120),
    height=st.integers(3, 120),
    side=st.integers(8, 56),
    crop_pct=st.floats(0.7, 1.3),
    mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_any_size_equals_timm(
    width: int, height: int, side: int, crop_pct: float, mode: str, interpolation: str
) -> None:
    config = timm_config(input_size=(3, side, side), crop_pct=crop_pct, crop_mode=mode, interpolation=interpolation)
    image = picture(width, height)
    if mode == "border":  # timm's own transform cannot resize to a side of 0
        assume(round(min(width, height) * math.floor(side / crop_pct) / max(width, height)) > 0)
    theirs = create_transform(**config, is_training=False, normalize=False)(image)
    np.testing.assert_array_equal(from_timm(config).geometry(image), theirs.permute(1, 2, 0).numpy())


def test_every_geometry_of_timm_and_open_clip() -> None:
    image = picture(160, 121)
    done: set[Geometry] = set()
    for name in timm.list_models(pretrained=True):
        entry = get_pretrained_cfg(name)
        if entry.num_classes != 1000 or entry.input_size[0] != 3:
            continue
        config = resolve_data_config({}, pretrained_cfg=entry.to_dict(), use_test_size=True)
        geometry = from_timm(config).geometry
        if geometry not in done:
            done.add(geometry)
            theirs = create_transform(**config, is_training=False, normalize=False)(image)
            np.testing.assert_array_equal(geometry(image), theirs.permute(1, 2, 0).numpy(), err_msg=name)
    assert len(done) > 50
    found: set[Preprocessing] = set()
    for arch, tag in open_clip.list_pretrained():
        config = PreprocessCfg(size=open_clip.get_model_config(arch)["vision_cfg"].get("image_size", 224))
        for key in ("mean", "std", "interpolation", "resize_mode"):
            setattr(config, key, open_clip_entry(arch, tag)[key])
        ours = from_open_clip(vars(config))
        if ours not in found:
            found.add(ours)
            assert torch.equal(normalised(ours, image), image_transform_v2(config, is_train=False)(image)), arch
    assert len(found) > 10


def test_test_size_is_the_published_one() -> None:
    """timm's tables are made at the test size; the training size is another geometry."""
    entry = get_pretrained_cfg("resnet50.a1_in1k").to_dict()
    published = from_timm(resolve_data_config({}, pretrained_cfg=entry, use_test_size=True)).geometry
    training = from_timm(resolve_data_config({}, pretrained_cfg=entry)).geometry
    assert (published.crop, published.resize) == ((288, 288), (288, 288))
    assert (training.crop, training.resize) == ((224, 224), (math.floor(224 / 0.95),) * 2)


def test_images_that_are_the_finished_crop_are_taken_as_they_are() -> None:
    geometry = from_timm(timm_config()).geometry
    cropped = picture(48, 48)
    np.testing.assert_array_equal(geometry.already_cropped(48)(cropped), np.asarray(cropped))
    other = geometry.already_cropped(64)
    assert other(picture(64, 64)).shape == (48, 48, 3)
    assert other.resize_mode == "squash"
    np.testing.assert_array_equal(
        other(picture(64, 64)), np.asarray(picture(64, 64).resize((48, 48), Image.Resampling.BICUBIC))
    )


def test_geometry_names_itself_and_only_itself() -> None:
    geometry = from_timm(timm_config()).geometry
    assert geometry.key() == "shortest-54x54-crop-48x48-bicubic-fill-0.0.0"
    others = [from_timm(config).geometry for config in TIMM_CASES.values()]
    assert len({g.key() for g in others}) == len(set(others)) > 5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        from_timm(timm_config()).geometry(picture(9, 9).convert(mode))


def test_an_image_too_thin_to_keep_its_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        from_timm(timm_config(crop_mode="border")).geometry(picture(400, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_mode": "centre"}, "did you mean center"),
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"input_size": (1, 48, 48)}, "1 channels"),
        ({"mean": (0.5, 0.5)}, "one or three values"),
    ],
)
def test_nonsense_is_answered_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_timm(timm_config(**change))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_both_layouts_are_normalised_alike(layout: str) -> None:
    pre = from_timm(timm_config())
    pixels = torch.from_numpy(pre.geometry(picture(60, 50)).copy())[None]
    given_pixels = pixels if layout == "NHWC" else pixels.permute(0, 3, 1, 2)
    out = Normalizer(pre, torch.device("cpu"))(given_pixels)
    assert out.shape == (1, 3, 48, 48)
    assert out.is_contiguous()
    assert torch.equal(out[0], create_transform(**timm_config(), is_training=False)(picture(60, 50)))
    with pytest.raises(ValueError, match="uint8"):
        Normalizer(pre, torch.device("cpu"))(out)
