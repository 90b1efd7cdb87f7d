"""timm's test transform as a `Preprocessing`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from closerlook_common.errors import UserError, nearest
from extract.preprocess import Geometry, Preprocessing, ResizeMode, per_channel

CROP_MODES: Mapping[str, ResizeMode] = {"center": "shortest", "squash": "squash", "border": "longest"}
"""timm's ``crop_mode`` by the side of the image that it resizes."""


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """Return what ``timm.data.create_transform(**config)`` does at test time.

    Parameters
    ----------
    config
        As ``timm.data.resolve_data_config(..., use_test_size=True)`` gives it: ``input_size``,
        ``interpolation``, ``mean``, ``std``, ``crop_pct``, ``crop_mode``.

    References
    ----------
    ``timm.data.transforms_factory.transforms_imagenet_eval``.
    """
    channels, height, width = config["input_size"]
    if channels != 3:
        raise UserError(f"the model takes {channels} channels; images have 3")
    crop = int(height), int(width)
    crop_pct = config["crop_pct"]
    if not isinstance(crop_pct, (int, float)) or not 0 < crop_pct < math.inf:
        raise UserError(f"crop_pct is {crop_pct!r}; it takes a number above 0")
    resize = math.floor(crop[0] / crop_pct), math.floor(crop[1] / crop_pct)
    mode = config.get("crop_mode") or "center"
    if mode not in CROP_MODES:
        raise UserError(f"crop_mode {mode!r} is not one of {', '.join(CROP_MODES)}{nearest(mode, CROP_MODES)}")
    resize_mode = CROP_MODES[mode]
    mean, std = per_channel(config["mean"]), per_channel(config["std"])
    red, green, blue = (round(255 * value) for value in mean)
    fill = (red, green, blue) if resize_mode == "longest" else (0, 0, 0)
    return Preprocessing(Geometry(resize_mode, resize, crop, config["interpolation"], fill), mean, std)
