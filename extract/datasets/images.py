"""From the bytes of an image file to an RGB image, the way timm's and torchvision's folder readers see it."""

from __future__ import annotations

import errno
import struct
import warnings
import zlib
from functools import cache
from io import BytesIO

from PIL import Image, UnidentifiedImageError, features

from closerlook_common.input_files import LFS_REMEDY, is_lfs_pointer

_SUFFIXES = "apng avif bmp dib gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""File suffixes taken for images, in lower case; what a file really is, its bytes say."""

# JPEG covers MPO. EPS is left out on purpose: Pillow hands it to an external program, and the bytes, not the
# suffix, choose the reader. AVIF needs Pillow 11.3 or newer.
_FORMATS = ("JPEG", "PNG", "AVIF", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP")
_AVIF_BRANDS = (b"avif", b"avis")

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


class MissingImage(UnreadableImage):
    """There is no file."""


class UnreachableImage(Exception):
    """The machine failed, not the image: fixing the machine does not change the dataset's digest."""


_OF_THE_NAME = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG}
"""What says that a name leads to no file; any other error of the system says that a file could not be had."""


def fault_of(error: OSError) -> UnreadableImage | UnreachableImage:
    """Return what an error of the operating system says about an image.

    Examples
    --------
    >>> fault_of(OSError(errno.ENOENT, "No such file or directory"))
    MissingImage('the file is missing')
    >>> fault_of(OSError(errno.EIO, "Input/output error"))
    UnreachableImage('Input/output error')
    """
    if error.errno == errno.ENOENT:
        return MissingImage("the file is missing")
    text = error.strerror or str(error)
    return UnreadableImage(text) if error.errno in _OF_THE_NAME else UnreachableImage(text)


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `_FORMATS` that this Pillow knows."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _reads_avif() -> bool:
    return "AVIF" in _formats() and features.check("avif") is True


def is_image_name(name: str) -> bool:
    """Return whether a file name looks like an image: known suffix in any case, not hidden (``._x.jpg`` is
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
    UnreachableImage
        It is AVIF, and the installed Pillow has no decoder for that.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        # Pillow warns of odd metadata and of large photographs, and reads them.
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data), formats=_formats()) as image:
            if isinstance(image.info.get("transparency"), bytes):
                # Transparency is dropped either way; Pillow warns of it once an image.
                image.info = {key: value for key, value in image.info.items() if key != "transparency"}
            rgb = image.convert("RGB")
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS and not _reads_avif():
            # The machine is at fault: a store without these images would stay as it is after an upgrade.
            raise UnreachableImage("this Pillow cannot read AVIF; install pillow 11.3 or newer") from None
        if is_lfs_pointer(data):  # a store without these images would stay as it is once they are fetched
            raise UnreachableImage(f"it {LFS_REMEDY}") from None
        raise UnreadableImage("not an image of a known format") from None
    except Image.DecompressionBombError as error:
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
