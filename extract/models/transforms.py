"""A library's test transform as a `Preprocessing`, read from its parts and then compared with it pixel by pixel.

Whatever a transform is made of, it is used only if images of noise come out of both bit for bit alike. So a transform
with a step that no `Preprocessing` has is an error, never a silent difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from closerlook_common.errors import UserError
from extract.models.pixels import Normalizer
from extract.models.spec import ModelSpec
from extract.preprocess import Geometry, Preprocessing, ResizeMode, per_channel

_SIZES = ((263, 331), (331, 262), (97, 64), (300, 300), (641, 427))
"""Heights and widths of the images of noise: odd and even differences, smaller than most crops, square."""

_KEYS = ("input_size", "resize", "mean", "std", "interpolation", "resize_mode", "crop_pct", "fill")


def images_of_noise() -> list[Image.Image]:
    """Return RGB images of noise, the same ones each time."""
    generator = np.random.default_rng(0)
    # Blocks, so that interpolation and position matter as much as they do for photographs.
    return [Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in _SIZES]


def preprocessing_of(transform: Any) -> Preprocessing:
    """Return what a transform does.

    Parameters
    ----------
    transform
        A `Preprocessing`; a mapping with ``input_size``, ``mean``, ``std``, ``interpolation`` and optionally
        ``resize_mode`` and ``crop_pct``; or a callable that takes an RGB image to a (3, H, W) float32 tensor:
        torchvision's presets and ``Compose``, timm's and open_clip's transforms.

    Raises
    ------
    UserError
        It does something that no `Preprocessing` does; the message begins with "its".
    """
    if isinstance(transform, Preprocessing):
        return transform
    if isinstance(transform, Mapping):
        return _of_mapping(transform)
    if not callable(transform):
        raise UserError(f"its preprocessing is {type(transform).__name__}, not a transform of images")
    found = _of_steps(transform)
    require_same(found, transform)
    return found


def require_same(preprocessing: Preprocessing, transform: Callable[[Image.Image], Any]) -> None:
    """Raise UserError where a transform gives other values than a `Preprocessing` for images of noise."""
    normalize = Normalizer(preprocessing, torch.device("cpu"))
    for image in images_of_noise():
        theirs = transform(image)
        theirs = torch.as_tensor(theirs)
        ours = normalize(torch.from_numpy(preprocessing.geometry(image).copy())[None])[0]
        if theirs.shape != ours.shape:
            raise UserError(
                f"its preprocessing makes {tuple(theirs.shape)} of an image of {image.height} x {image.width},"
                f" {tuple(ours.shape)} was expected; {_REMEDY}"
            )
        if not torch.equal(theirs, ours):
            largest = float((theirs.float() - ours).abs().max())
            raise UserError(
                f"its preprocessing does more than resize, crop in the centre, scale to 0..1 and normalise (values"
                f" differ by up to {largest:.3g}); {_REMEDY}"
            )


_REMEDY = "do the rest inside the module, or give an extract.preprocess.Preprocessing"


def _of_mapping(given: Mapping[str, Any]) -> Preprocessing:
    if strange := sorted(set(given) - set(_KEYS)):
        raise UserError(f"its preprocessing has {strange[0]!r}; the keys are {', '.join(_KEYS)}")
    if missing := [key for key in ("input_size", "mean", "std", "interpolation") if key not in given]:
        raise UserError(f"its preprocessing lacks {', '.join(missing)}")
    crop = _two(given["input_size"])
    share = float(given.get("crop_pct", 1.0))
    if not 0 < share < math.inf:
        raise UserError(f"its crop_pct is {share}; it takes a number above 0")
    resize = _two(given["resize"]) if "resize" in given else (math.floor(crop[0] / share), math.floor(crop[1] / share))
    mode: ResizeMode = given.get("resize_mode", "shortest")
    fill = tuple(given.get("fill", (0, 0, 0)))
    geometry = Geometry(mode, resize, crop, str(given["interpolation"]), fill)
    return Preprocessing(geometry, per_channel(given["mean"]), per_channel(given["std"]))


def _of_steps(transform: Any) -> Preprocessing:
    """Read a transform's steps by their attributes; `require_same` finds what this misses."""
    resize: tuple[ResizeMode, tuple[int, int], str] | None = None
    crop: tuple[int, int] | None = None
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for step in _steps(transform):
        name = type(step).__name__
        if (size := getattr(step, "crop_size", None)) is not None:
            crop = _two(size)
        if (size := getattr(step, "resize_size", None)) is not None:
            resize = "shortest", _two(size), _filter(step)
        elif name == "CenterCrop" or "Crop" in name:
            crop = _two(step.size)
        elif hasattr(step, "size") and hasattr(step, "interpolation"):
            both = isinstance(step.size, (tuple, list)) and len(step.size) == 2
            mode: ResizeMode = "squash" if both and name == "Resize" else "shortest"
            resize = mode, _two(step.size), _filter(step)
        if getattr(step, "mean", None) is not None and getattr(step, "std", None) is not None:
            mean, std = _values(step.mean), _values(step.std)
    if crop is None and resize is not None and resize[0] == "squash":
        crop = resize[1]
    if crop is None:
        raise UserError(f"its preprocessing crops to no fixed size; {_REMEDY}")
    mode, sides, interpolation = resize or ("none", crop, "bilinear")
    return Preprocessing(Geometry(mode, sides, crop, interpolation), mean, std)


def _steps(transform: Any) -> Iterable[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None or callable(inner):
        yield transform
        return
    for step in inner:
        yield from _steps(step)


def _two(size: Any) -> tuple[int, int]:
    sides = [size] if isinstance(size, int) else list(size)
    if len(sides) == 3:  # channels, height, width
        sides = sides[1:]
    if len(sides) not in (1, 2) or not all(isinstance(side, int) for side in sides):
        raise UserError(f"its preprocessing has a size of {str(size)[:60]}; it takes one side or height and width")
    return sides[0], sides[-1]


def _values(values: Any) -> tuple[float, float, float]:
    return per_channel(np.asarray(values, dtype=np.float64).reshape(-1).tolist())


def _filter(step: Any) -> str:
    value = getattr(step, "interpolation", "bilinear")
    return str(getattr(value, "value", value)).lower()


def line_preprocessing(spec: ModelSpec, base: Preprocessing | None) -> Preprocessing:
    """Return a model's preprocessing with what its line says about it; the line wins.

    Parameters
    ----------
    spec
        The line: ``input_size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``crop_pct``.
    base
        What the model brings; None where it brings nothing, so that the line has to say all.

    Raises
    ------
    UserError
        The line leaves out what nothing else says.
    """
    crop_pct = spec.numbers("crop_pct")
    line: dict[str, Any] = {
        "input_size": spec.number("input_size"), "mean": spec.numbers("mean"), "std": spec.numbers("std"),
        "interpolation": spec.options.get("interpolation"), "resize_mode": spec.options.get("resize_mode"),
        "crop_pct": crop_pct[0] if crop_pct else None,
    }  # fmt: skip
    line = {key: value for key, value in line.items() if value is not None}
    try:
        if base is None:
            needed = ("input_size", "mean", "std", "interpolation", "resize_mode")
            if missing := [f"{key}=" for key in needed if key not in line]:
                raise UserError(
                    f"nothing says how {spec.id} sees images: return its preprocessing, or give {' '.join(missing)}"
                )
            return _of_mapping(line)
        if not line:
            return base
        geometry = base.geometry
        if {"input_size", "resize_mode", "crop_pct"} & set(line):
            share = line.get("crop_pct", geometry.crop[0] / geometry.resize[0])
            crop = _two(line["input_size"]) if "input_size" in line else geometry.crop
            resize = math.floor(crop[0] / share), math.floor(crop[1] / share)
            mode = line.get("resize_mode", geometry.resize_mode)
            geometry = replace(geometry, crop=crop, resize=resize, resize_mode=mode)
        if "interpolation" in line:
            geometry = replace(geometry, interpolation=line["interpolation"])
        mean = per_channel(line["mean"]) if "mean" in line else base.mean
        std = per_channel(line["std"]) if "std" in line else base.std
        return Preprocessing(geometry, mean, std)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from error
