"""An RGB image in, the very uint8 pixels out that timm's or open_clip's own test transform normalises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cache_schema.errors import UserError, nearest

ResizeMode = Literal["shortest", "longest", "squash", "none"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("shortest", "longest", "squash", "none")
INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in
                  ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}  # fmt: skip
TIMM_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}
"""timm's ``crop_mode`` by the side of the image that it resizes."""


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a rectangle of pixels; equal geometries give equal pixels, so they share a decode.

    Attributes
    ----------
    resize_mode
        ``shortest`` (shorter side to ``resize``, aspect kept), ``longest`` (longer side), ``squash`` (both
        sides, aspect lost), ``none`` (not resized).
    resize
        Height and width that the image is resized to, or fitted to.
    crop
        Height and width of the centre crop; what is missing is padded with ``fill``.
    interpolation
        Pillow's name of the filter.
    fill
        Padding colour, 0 to 255 a channel.
    """

    resize_mode: ResizeMode
    resize: tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.resize_mode not in RESIZE_MODES:
            raise UserError(
                f"resize_mode {self.resize_mode!r} is not one of {', '.join(RESIZE_MODES)}"
                f"{nearest(self.resize_mode, RESIZE_MODES)}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"interpolation {self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}"
                f"{nearest(self.interpolation, INTERPOLATIONS)}"
            )

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        return self.crop

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of an RGB image.

        Parameters
        ----------
        image
            In mode RGB: conversion comes before resizing, for every model (a palette image would otherwise be
            resized by another filter).

        Returns
        -------
        ndarray of shape (H, W, 3)
            uint8.

        Raises
        ------
        ValueError
            The image is not RGB, or so long and thin that a side would vanish.
        """
        if image.mode != "RGB":
            raise ValueError(f"an RGB image is needed, this one is in mode {image.mode}")
        size = self._resized(image.height, image.width)
        if size != (image.height, image.width):
            image = image.resize((size[1], size[0]), INTERPOLATIONS[self.interpolation])
        return np.asarray(_centre_crop(image, self.crop, self.fill))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        target_height, target_width = self.resize
        if self.resize_mode == "none":
            return height, width
        if self.resize_mode == "squash":
            return self.resize
        if self.resize_mode == "shortest" and target_height == target_width:
            # torchvision's Resize(int) rounds the longer side down ...
            if width <= height:
                return int(target_width * height / width), target_width
            return target_height, int(target_height * width / height)
        # ... and timm's and open_clip's ResizeKeepRatio round to even.
        ratios = height / target_height, width / target_width
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return round(height / ratio), round(width / ratio)

    def key(self) -> str:
        """Return a stable name, also fit for a file: ``shortest-256x256-crop-224x224-bicubic-fill-0.0.0``."""
        resize = "x".join(map(str, self.resize))
        crop = "x".join(map(str, self.crop))
        fill = ".".join(map(str, self.fill))
        return f"{self.resize_mode}-{resize}-crop-{crop}-{self.interpolation}-fill-{fill}"

    def already_cropped(self, side: int) -> Geometry:
        """Return the geometry for images that are stored as the finished square crop of ``side`` pixels.

        A model of that input size takes them as they are; any other sees them resized to its own, nothing
        cropped.
        """
        mode: ResizeMode = "none" if self.crop == (side, side) else "squash"
        return replace(self, resize_mode=mode, resize=self.crop)


def _centre_crop(image: Image.Image, crop: tuple[int, int], fill: tuple[int, int, int]) -> Image.Image:
    height, width = crop
    short_y, short_x = max(height - image.height, 0), max(width - image.width, 0)
    if short_y or short_x:
        border = (short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2)
        image = ImageOps.expand(image, border, fill)
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    if (top, left) == (0, 0) and image.size == (width, height):
        return image
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to an image before its first layer.

    Attributes
    ----------
    geometry
        Resizing and cropping, on the CPU.
    mean, std
        By channel, of pixels scaled to 0..1; applied on the device in float32.
    """

    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON-ready dictionary, as kept in the model card and in the identity of a store."""
        geometry = self.geometry
        return {
            "resize_mode": geometry.resize_mode,
            "resize": list(geometry.resize),
            "crop": list(geometry.crop),
            "interpolation": geometry.interpolation,
            "fill": list(geometry.fill),
            "mean": list(self.mean),
            "std": list(self.std),
        }


def _channels(values: float | Sequence[float]) -> tuple[float, float, float]:
    if isinstance(values, (int, float)):
        values = (values,)
    three = tuple(map(float, values)) * (3 if len(values) == 1 else 1)
    if len(three) != 3:
        raise UserError(f"mean and std have one or three values, not {len(three)}")
    return three[0], three[1], three[2]


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
    resize = math.floor(crop[0] / crop_pct), math.floor(crop[1] / crop_pct)
    mode = config.get("crop_mode") or "center"
    if mode not in TIMM_MODES:
        raise UserError(
            f"crop_mode {mode!r} is not one of {', '.join(TIMM_MODES)}{nearest(mode, TIMM_MODES)}"
        )
    resize_mode: ResizeMode = TIMM_MODES[mode]  # type: ignore[assignment]
    mean, std = _channels(config["mean"]), _channels(config["std"])
    red, green, blue = (round(255 * value) for value in mean)
    fill = (red, green, blue) if resize_mode == "longest" else (0, 0, 0)
    return Preprocessing(Geometry(resize_mode, resize, crop, config["interpolation"], fill), mean, std)


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
    return Preprocessing(geometry, _channels(config["mean"]), _channels(config["std"]))
