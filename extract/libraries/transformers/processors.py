"""An image processor of transformers as a `Preprocessing`, compared with the processor itself bit for bit.

transformers has two processors a model: one of Pillow and NumPy, one of torchvision, which resizes tensors and differs
by a grey level here and there. Pillow's is taken: it is what the models were published with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from closerlook_common.errors import UserError
from extract.libraries.saved import Source
from extract.models.remote_code import OPTION, remote_code
from extract.models.spec import ModelSpec
from extract.models.transforms import require_same
from extract.preprocess import INTERPOLATIONS, Geometry, Preprocessing, ResizeMode, per_channel

_FILTERS = {int(filter_): name for name, filter_ in INTERPOLATIONS.items()}
_CROPPED_BELOW = 384
"""ConvNeXt's processors resize and crop below this size, and squash from it on."""


def preprocessing_of_processor(spec: ModelSpec, source: Source) -> Preprocessing:
    """Return what a model's image processor does.

    Raises
    ------
    UserError
        There is none, or it does something that no `Preprocessing` does.
    """
    from transformers import AutoImageProcessor

    trusted = bool(spec.flag(OPTION))
    with remote_code(trusted, spec.where, f"the image processor of {spec.id}"):
        try:
            automatic: Any = AutoImageProcessor
            processor: Any = automatic.from_pretrained(
                str(source.folder), local_files_only=True, backend="pil", **({OPTION: True} if trusted else {})
            )
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            if OPTION in str(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{spec.where}: {source.folder} has no usable image processor: save it there with"
                f" processor.save_pretrained ({reason})"
            ) from error

    def theirs(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]))

    try:
        found = _read(processor)
        require_same(found, theirs)
    except UserError as error:
        raise UserError(f"{spec.where}: {spec.id}, {type(processor).__name__}: {error}") from error
    return found


def _read(processor: Any) -> Preprocessing:
    size = _sizes(getattr(processor, "size", None))
    crop_size = _sizes(getattr(processor, "crop_size", None))
    resamples = getattr(processor, "do_resize", True) and size
    crops = getattr(processor, "do_center_crop", False) and crop_size
    short = size.get("shortest_edge")
    mode: ResizeMode = "none"
    crop = (crop_size["height"], crop_size["width"]) if crops else None
    resize = crop
    if resamples and short:
        mode, resize = "shortest", (short, short)
        if (share := getattr(processor, "crop_pct", None)) is not None and not crops:
            crop = resize
            mode = "shortest" if short < _CROPPED_BELOW else "squash"
            if short < _CROPPED_BELOW:
                resize = (int(short / share), int(short / share))
    elif resamples and size.get("height") and size.get("width"):
        mode, resize = "squash", (size["height"], size["width"])
        crop = crop or resize
    if crop is None or resize is None:
        raise UserError("its images have no fixed size, so that batches of them cannot be made")
    interpolation = _FILTERS.get(int(getattr(processor, "resample", None) or 0), "bilinear")
    normalises = bool(getattr(processor, "do_normalize", True))
    mean = per_channel(processor.image_mean) if normalises else (0.0, 0.0, 0.0)
    std = per_channel(processor.image_std) if normalises else (1.0, 1.0, 1.0)
    if getattr(processor, "rescale_offset", False) and not normalises:  # to -1 ... 1 in one step, as ALIGN takes them
        mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return Preprocessing(Geometry(mode, resize, crop, interpolation, crop_rounding="down"), mean, std)


def _sizes(size: Any) -> dict[str, int]:
    """Return the sides that a processor's size has; one number is the shortest edge."""
    if isinstance(size, int):
        return {"shortest_edge": size}
    keys = ("shortest_edge", "height", "width")
    found = {key: size.get(key) if isinstance(size, dict) else getattr(size, key, None) for key in keys}
    return {key: int(value) for key, value in found.items() if value}
