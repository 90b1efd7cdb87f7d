"""From the bytes of an image file to an RGB image, the way timm's and torchvision's folder readers see it."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image, UnidentifiedImageError

_SUFFIXES = "bmp gif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""File suffixes taken for images, in lower case; what a file really is, its bytes say."""

# JPEG covers MPO. EPS is left out on purpose: Pillow hands it to an external program, and the bytes, not the
# suffix, choose the reader.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP")

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


class UnreadableImage(Exception):
    """One image cannot be read; the message is the reason, short enough for a table."""


def is_image_name(name: str) -> bool:
    """Tell whether a file name looks like an image: known suffix in any case, not hidden (``._x.jpg`` is
    none).
    """
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and not name.startswith(".") and f".{suffix.lower()}" in IMAGE_SUFFIXES


def decode_rgb(data: bytes, *, border_crop: int = 0) -> Image.Image:
    """Decode an image file to RGB.

    The image is converted to RGB before anything else, so that palette images are resized as colours and not
    as palette indices. EXIF rotation is ignored, as timm and torchvision ignore it. Only the first frame is
    taken.

    Parameters
    ----------
    data
        The file's bytes. What they are is found from the bytes: a PNG named ``.JPEG`` is read as PNG.
    border_crop
        Pixels cut off each side (2 for ObjectNet's red border).

    Returns
    -------
    PIL.Image.Image
        Mode RGB, fully loaded.

    Raises
    ------
    UnreadableImage
        The bytes are no image, are cut short, or unpack to more pixels than Pillow's limit for decompression
        bombs allows.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if isinstance(image.info.get("transparency"), bytes):
                # Transparency is dropped either way; Pillow warns of it once an image.
                image.info = {key: value for key, value in image.info.items() if key != "transparency"}
            rgb = image.convert("RGB")
    except UnidentifiedImageError:
        raise UnreadableImage("not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"too many pixels: {error}") from None
    except MemoryError:
        raise UnreadableImage("not enough memory to unpack it") from None
    except _BROKEN as error:
        raise UnreadableImage(str(error) or type(error).__name__) from None
    if not border_crop:
        return rgb
    width, height = rgb.size
    if min(width, height) <= 2 * border_crop:
        raise UnreadableImage(f"{width}x{height} is too small for a border crop of {border_crop} pixels")
    return rgb.crop((border_crop, border_crop, width - border_crop, height - border_crop))
