"""An RGB image in, the very uint8 pixels out that the test transform of a model's library normalises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from closerlook_common.errors import UserError, nearest

ResizeMode = Literal["shortest", "longest", "squash", "none"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("shortest", "longest", "squash", "none")
INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in
                  ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}  # fmt: skip
LARGEST_SIDE = 8192
"""Of what a model is given; eight times that of any published model."""
LARGEST_RESIZE = 4 * LARGEST_SIDE


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
    crop_rounding
        Where the centre lies between two pixels: ``even`` (torchvision, timm, open_clip) or ``down`` (transformers).
    """

    resize_mode: ResizeMode
    resize: tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    crop_rounding: Literal["even", "down"] = "even"

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
        for what, sides, largest in (
            ("input size", self.crop, LARGEST_SIDE),
            ("size that images are resized to", self.resize, LARGEST_RESIZE),
        ):
            if not all(0 < side <= largest for side in sides):
                raise UserError(f"the {what} is {' x '.join(map(str, sides))}; its sides go from 1 to {largest:,}")

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
        return np.asarray(_centre_crop(image, self.crop, self.fill, down=self.crop_rounding == "down"))

    def for_image(self, image_id: str) -> Geometry:
        """Return what is done to one image, for subclasses whose pixels depend on its name."""
        del image_id
        return self

    def window(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Return to which (height, width) such an image is resized, and where (top, left) the crop begins there.

        None where the image is not resized in both directions, or is smaller than the crop afterwards and padded.
        """
        rows, columns = self._resized(height, width)
        spare = rows - self.crop[0], columns - self.crop[1]
        if rows == height or columns == width or min(spare) < 0:
            return None
        return (rows, columns), _corner(*spare, down=self.crop_rounding == "down")

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
        rounding = "" if self.crop_rounding == "even" else f"-{self.crop_rounding}"
        return f"{self.resize_mode}-{resize}-crop-{crop}{rounding}-{self.interpolation}-fill-{fill}"

    def already_cropped(self, side: int) -> Geometry:
        """Return the geometry for images that are stored as the finished square crop of ``side`` pixels.

        A model of that input size takes them as they are; any other sees them resized to its own, nothing
        cropped.
        """
        mode: ResizeMode = "none" if self.crop == (side, side) else "squash"
        return replace(self, resize_mode=mode, resize=self.crop)


def _corner(spare_rows: int, spare_columns: int, *, down: bool) -> tuple[int, int]:
    top, left = spare_rows / 2, spare_columns / 2
    return (math.floor(top), math.floor(left)) if down else (round(top), round(left))


def _centre_crop(image: Image.Image, crop: tuple[int, int], fill: tuple[int, int, int], *, down: bool) -> Image.Image:
    height, width = crop
    short_y, short_x = max(height - image.height, 0), max(width - image.width, 0)
    if short_y or short_x:
        border = (short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2)
        image = ImageOps.expand(image, border, fill)
    top, left = _corner(image.height - height, image.width - width, down=down)
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

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                raise UserError(f"{name} is {values}; it takes numbers{' above 0' if name == 'std' else ''}")

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON-ready dictionary, as kept in the model card and in the identity of a store."""
        geometry = self.geometry
        rounding = {} if geometry.crop_rounding == "even" else {"crop_rounding": geometry.crop_rounding}
        return {
            "resize_mode": geometry.resize_mode,
            "resize": list(geometry.resize),
            "crop": list(geometry.crop),
            "interpolation": geometry.interpolation,
            "fill": list(geometry.fill),
            "mean": list(self.mean),
            "std": list(self.std),
            **rounding,
        }


def per_channel(values: float | Sequence[float]) -> tuple[float, float, float]:
    """Return one value or three as three, one a channel; raise UserError for anything else."""
    if isinstance(values, (int, float)):
        values = (values,)
    if not isinstance(values, Sequence) or not all(isinstance(value, (int, float)) for value in values):
        raise UserError(f"mean and std are numbers, not {str(values)[:80]}")
    three = tuple(map(float, values)) * (3 if len(values) == 1 else 1)
    if len(three) != 3:
        raise UserError(f"mean and std have one or three values, not {len(three)}")
    return three[0], three[1], three[2]
