"""open_clip's test transform as a `Preprocessing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extract.preprocess import Geometry, Preprocessing, ResizeMode, per_channel


def from_open_clip(config: Mapping[str, Any]) -> Preprocessing:
    """Return what ``open_clip.image_transform_v2(PreprocessCfg(**config), is_train=False)`` does.

    Parameters
    ----------
    config
        ``size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``fill_color``.

    References
    ----------
    ``open_clip.transform.image_transform``.
    """
    size = config["size"]
    crop = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode: ResizeMode = config["resize_mode"]
    # open_clip takes "random" for bicubic, and bicubic for every non-square "shortest".
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    if mode == "shortest" and crop[0] != crop[1]:
        interpolation = "bicubic"
    shade = int(config.get("fill_color", 0)) if mode == "longest" else 0
    geometry = Geometry(mode, crop, crop, interpolation, (shade, shade, shade))
    return Preprocessing(geometry, per_channel(config["mean"]), per_channel(config["std"]))
