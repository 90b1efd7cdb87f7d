"""A model's processor, and the one size that images are made to before the processor sees them.

A pass decodes images to rectangles of one size. A processor that resizes and crops every image to one size (LLaVA 1.5)
gives the size itself, and is compared with the processor bit for bit. One that keeps an image's shape (Qwen-VL), or
cuts it into tiles by it (LLaVA-NeXT, InternVL, Idefics, SmolVLM), needs a size in the model's line; the processor then
treats the images of this size as any others.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from closerlook_common.errors import UserError
from extract.libraries.saved import Source
from extract.models.remote_code import OPTION, remote_code
from extract.models.spec import ModelSpec
from extract.models.transforms import images_of_noise, line_preprocessing
from extract.preprocess import INTERPOLATIONS, Geometry, Preprocessing, ResizeMode, per_channel

_FILTERS = {int(filter_): name for name, filter_ in INTERPOLATIONS.items()}
_SIZE_OPTIONS = ("input_size", "resize_mode")


def processor_of(spec: ModelSpec, source: Source) -> Any:
    """Return the processor saved beside a model: a tokenizer and an image processor.

    Raises
    ------
    UserError
        There is none, or it cannot be loaded.
    """
    from transformers import AutoProcessor

    trusted = bool(spec.flag(OPTION))
    automatic: Any = AutoProcessor
    try:
        with remote_code(trusted, spec.where, f"the processor of {spec.id}"):
            found = automatic.from_pretrained(
                str(source.folder), local_files_only=True, **({OPTION: True} if trusted else {})
            )
    except UserError:
        raise
    except Exception as error:  # whatever the code of a processor raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{spec.where}: {spec.id} has no usable processor in {source.folder}: save it there with"
            f" processor.save_pretrained ({type(error).__name__}: {reason})"
        ) from error
    lacking = [what for what in ("tokenizer", "image_processor") if getattr(found, what, None) is None]
    if lacking:
        raise UserError(
            f"{spec.where}: {spec.id} has no processor in {source.folder}, only a {type(found).__name__} without"
            f" {' and '.join(lacking)}: save the model's processor there with processor.save_pretrained"
        )
    return found


def preprocessing_of_line(spec: ModelSpec, source: Source, processor: Any) -> Preprocessing:
    """Return how images are made to one size, with the processor's mean and standard deviation for the record.

    Raises
    ------
    UserError
        The processor gives images no fixed size, and neither does the line.
    """
    for option in ("mean", "std"):
        if option in spec.options:
            raise UserError(
                f"{spec.where}: {option}= does not go with {spec.library}: the model's processor normalizes"
            )
    images = processor.image_processor
    normalizes = bool(getattr(images, "do_normalize", True)) and getattr(images, "image_mean", None) is not None
    mean = per_channel(images.image_mean) if normalizes else (0.0, 0.0, 0.0)
    std = per_channel(images.image_std) if normalizes else (1.0, 1.0, 1.0)
    interpolation = _FILTERS.get(int(getattr(images, "resample", None) or 3), "bicubic")
    geometry = _fixed_geometry(images, interpolation)
    if geometry is not None and _is_the_processors(spec, source, geometry):
        side = spec.number("input_size")
        if side is not None and (side, side) != geometry.crop:
            made = " x ".join(map(str, geometry.crop))
            raise UserError(
                f"{spec.where}: the processor of {spec.id} makes images of {made}; remove input_size={side}"
            )
        return line_preprocessing(spec, Preprocessing(geometry, mean, std))
    if missing := [f"{option}=" for option in _SIZE_OPTIONS if option not in spec.options]:
        raise UserError(
            f"{spec.where}: the processor of {spec.id} ({type(images).__name__}) gives images no fixed size, so that"
            f" batches of them cannot be made: add {' and '.join(missing)} to the line, such as input_size=448"
            " resize_mode=longest"
        )
    side = spec.number("input_size") or 0
    return line_preprocessing(spec, Preprocessing(_square(spec, side, interpolation), mean, std))


def _square(spec: ModelSpec, side: int, interpolation: str) -> Geometry:
    try:
        return Geometry("squash", (side, side), (side, side), interpolation)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from error


def _fixed_geometry(images: Any, interpolation: str) -> Geometry | None:
    """Return the geometry that the settings of an image processor describe; None where none does."""
    size, crop_size = _sides(getattr(images, "size", None)), _sides(getattr(images, "crop_size", None))
    short, both = size.get("shortest_edge"), (size.get("height"), size.get("width"))
    crop = (crop_size.get("height"), crop_size.get("width")) if getattr(images, "do_center_crop", False) else both
    mode: ResizeMode = "shortest" if short else "squash"
    resize = (short, short) if short else both
    if None in (*crop, *resize):
        return None
    try:
        return Geometry(mode, resize, crop, interpolation, crop_rounding="down")  # type: ignore[arg-type]
    except UserError:
        return None


def _sides(size: Any) -> dict[str, int]:
    keys = ("shortest_edge", "height", "width")
    found = {key: size.get(key) if isinstance(size, dict) else getattr(size, key, None) for key in keys}
    return {key: int(value) for key, value in found.items() if value}


def _is_the_processors(spec: ModelSpec, source: Source, geometry: Geometry) -> bool:
    """Return whether the image processor gives the same of images and of what a geometry makes of them.

    The processor's Pillow form is compared: its torchvision form, which runs on finished rectangles later, resizes
    differently by a grey level here and there.
    """
    from transformers import AutoImageProcessor

    automatic: Any = AutoImageProcessor
    trusted = bool(spec.flag(OPTION))
    try:
        with remote_code(trusted, spec.where, f"the image processor of {spec.id}"):
            images = automatic.from_pretrained(
                str(source.folder), local_files_only=True, backend="pil", **({OPTION: True} if trusted else {})
            )
        for image in images_of_noise():
            made = Image.fromarray(geometry(image))
            theirs = images(images=[image], return_tensors="pt")
            ours = images(images=[made], return_tensors="pt")
            if not _same(dict(theirs), dict(ours)):
                return False
    except UserError:
        raise
    except Exception:  # noqa: BLE001  # it has no form of Pillow, or takes no images of some shape
        return False
    return True


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    if set(first) != set(second):
        return False
    pairs = [(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first]
    return all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs)


def on_device(processor: Any) -> bool:
    """Return whether a processor takes tensors where they are: its image processor is the form of torchvision."""
    return str(getattr(processor.image_processor, "backend", "")) == "torchvision"
