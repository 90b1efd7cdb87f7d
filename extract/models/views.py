"""Many views of one image, as test-time methods take them: the plain one, and random resized crops."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extract.models.view_recipe import FLIP, RATIO, SCALE, SEED, VIEWS
from extract.preprocess import INTERPOLATIONS, Geometry

ATTEMPTS = 10
"""Draws of area and ratio until a crop lies within the image; then the largest one in the middle is taken."""


@dataclass(frozen=True)
class Views(Geometry):
    """All views of an image, one below the other: the plain one first.

    Attributes
    ----------
    image_id
        Of the image, see `for_image`: with seed and number of a view it decides what is drawn, and nothing else does.
    """

    image_id: str = ""

    @classmethod
    def of(cls, geometry: Geometry) -> Views:
        """Return the views of images that a model takes at some geometry."""
        return cls(**{field.name: getattr(geometry, field.name) for field in fields(Geometry)})

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of all views together."""
        return VIEWS * self.crop[0], self.crop[1]

    def for_image(self, image_id: str) -> Views:
        """Return the views of one image."""
        return replace(self, image_id=image_id)

    def window(self, height: int, width: int) -> None:
        """Return None: there is no single part of the image that is resized."""
        del height, width

    def key(self) -> str:
        """Return a stable name."""
        return f"views-{super().key()}"

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of all views, (VIEWS * H, W, 3) uint8; see `Geometry`."""
        height, width = self.crop
        out = np.empty((VIEWS, height, width, 3), np.uint8)
        out[0] = super().__call__(image)
        for view in range(1, VIEWS):
            left, top, right, bottom, mirrored = crop_of(self.image_id, view, image.height, image.width)
            # Cropped first, so that no pixel outside counts.
            cut = image.crop((left, top, right, bottom)).resize((width, height), INTERPOLATIONS[self.interpolation])
            pixels = np.asarray(cut)
            out[view] = pixels[:, ::-1] if mirrored else pixels
        return out.reshape(VIEWS * height, width, 3)


def crop_of(image_id: str, view: int, height: int, width: int) -> tuple[int, int, int, int, bool]:
    """Return the crop of a view, (left, top, right, bottom), and whether it is mirrored.

    Area and ratio are drawn as torchvision's ``RandomResizedCrop`` does, from a hash of seed, view and image.

    Parameters
    ----------
    image_id
        Of the image.
    view
        Number of the view; 0 is the plain one, and is not drawn.
    height, width
        Of the image.
    """
    key = f"{SEED}\n{view}\n{image_id}".encode("utf-8", "surrogatepass")
    drawn = np.frombuffer(hashlib.shake_256(key).digest(8 * (2 * ATTEMPTS + 3)), ">u8")
    *shapes, down, across, mirror = ((drawn >> 11) * 2.0**-53).tolist()
    for share, shape in zip(shapes[::2], shapes[1::2], strict=True):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * share)
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** shape
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
            return left, top, left + columns, top + rows, mirror < FLIP
    columns, rows = width, height
    if width < RATIO[0] * height:
        rows = round(width / RATIO[0])
    elif width > RATIO[1] * height:
        columns = round(height * RATIO[1])
    top, left = (height - rows) // 2, (width - columns) // 2
    return left, top, left + columns, top + rows, mirror < FLIP
