"""A library's transform is read as a preprocessing only if both make the same pixels, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.transforms as tvt
from PIL import Image

from closerlook_common.errors import UserError
from extract.models.pixels import Normalizer
from extract.models.transforms import images_of_noise, preprocessing_of

TRANSFORMS = {
    "torchvision": tvt.Compose(
        [tvt.Resize(40), tvt.CenterCrop(33), tvt.ToTensor(), tvt.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))]
    ),
    "bicubic": tvt.Compose([tvt.Resize(48, tvt.InterpolationMode.BICUBIC), tvt.CenterCrop(32), tvt.ToTensor()]),
    "squashed": tvt.Compose([tvt.Resize((40, 32)), tvt.ToTensor(), tvt.Normalize((0.5,) * 3, (0.5,) * 3)]),
    "padded": tvt.Compose([tvt.Resize(28), tvt.CenterCrop(32), tvt.ToTensor()]),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_read_bit_for_bit(name: str) -> None:
    transform = TRANSFORMS[name]
    found = preprocessing_of(transform)
    normalize = Normalizer(found, torch.device("cpu"))
    for image in [*images_of_noise(), Image.new("RGB", (51, 77), (9, 99, 199))]:
        ours = normalize(torch.from_numpy(found.geometry(image).copy())[None])[0]
        assert torch.equal(ours, transform(image))


def test_transforms_of_timm_and_open_clip_are_read() -> None:
    import open_clip
    import timm

    preprocessing_of(timm.data.create_transform(input_size=64, crop_pct=0.9, interpolation="bicubic"))
    preprocessing_of(open_clip.image_transform(64, is_train=False))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (tvt.Compose([tvt.Resize(40), tvt.CenterCrop(32), tvt.Grayscale(3), tvt.ToTensor()]), "does more than resize"),
        (tvt.Compose([tvt.Resize(40), tvt.ToTensor()]), "crops to no fixed size"),
        (tvt.Compose([tvt.CenterCrop(32), tvt.Resize(40), tvt.ToTensor()]), "makes|does more"),
        ({"input_size": 32, "mean": 0.5, "std": 0.5}, "lacks interpolation"),
        ({"input_size": 32, "mean": 0.5, "std": 0.5, "interpolation": "bicubic", "crop": 3}, "has 'crop'"),
        (3, "is int, not a transform"),
    ],
)
def test_what_no_preprocessing_does_is_refused(transform: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preprocessing_of(transform)
