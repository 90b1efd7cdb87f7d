"""Datasets that are Python objects: of torchvision, Hugging Face, WILDS, or anything with a length and items.

An item is ``(image, label)``, a dictionary with an image and a label, or an image alone. An image is a Pillow image, an
8-bit array (H, W) or (H, W, 3), the bytes of an image file, or its path. Pixels go through the models' own transforms
like those of files, so the object must not transform them itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from closerlook_common.console.terminal import counted
from closerlook_common.console.waiting import waiting_for
from closerlook_common.errors import UserError
from extract.datasets.base import NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.images import UnreadableImage
from extract.own_code import explaining, function_at

IMAGE_KEYS = ("image", "img", "picture", "jpg", "png")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "class", "cls")
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class Reference:
    """A function that returns a dataset; every decoding process calls it for itself.

    Attributes
    ----------
    place
        ``FILE.py`` or ``package.module``.
    function
        Its name.
    """

    place: str
    function: str

    def load(self, where: str) -> Any:
        """Call the function."""
        function = function_at(self.place, self.function, where)
        with explaining(where, f"{self.function}()"):
            return function()


def reference(text: str, where: str) -> Reference:
    """Return what ``FILE.py:function`` or ``package.module:function`` names."""
    place, colon, function = text.rpartition(":")
    if not colon or not place or not function.isidentifier():
        raise UserError(f"{where}: {text!r} is neither FILE.py:function nor package.module:function")
    return Reference(str(Path(place).expanduser().absolute()) if place.endswith(".py") else place, function)


_loaded: dict[Reference, Any] = {}


@dataclass(frozen=True, eq=False)
class PythonSource:
    """Images of a Python object, as bytes.

    Attributes
    ----------
    data
        The object, or the function that returns it.
    where
        For messages.
    """

    data: Any
    where: str

    def items(self) -> Any:
        """Return the object."""
        if not isinstance(self.data, Reference):
            return self.data
        if self.data not in _loaded:
            _loaded[self.data] = checked(self.data.load(self.where), self.where)
        return _loaded[self.data]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        try:
            return image_bytes(parts(self.items()[index], self.where).image, self.where)
        except UserError as error:
            raise UnreadableImage(str(error)) from error
        except Exception as error:  # the object's own code: one bad item is one bad image
            raise UnreadableImage(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error

    @property
    def files(self) -> Sequence[Path]:
        """The file that holds the function, if there is one."""
        named = isinstance(self.data, Reference) and self.data.place.endswith(".py")
        return [Path(self.data.place)] if named else []


class Parts(NamedTuple):
    """An item's image and label."""

    image: Any
    label: Any


def checked(data: Any, where: str) -> Any:
    """Return an object with a length and items: itself, or the list of what an iterable yields.

    Raises
    ------
    UserError
        It is neither.
    """
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, str | bytes | Mapping):
        return data
    if isinstance(data, Mapping):
        raise UserError(
            f"{where}: a dictionary ({', '.join(map(str, list(data)[:4]))}) is not a dataset; name one split"
        )
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        with explaining(where, "reading the items"):
            return list(data)
    raise UserError(f"{where}: {type(data).__name__} has no items; return a dataset, a list or a generator of items")


def parts(item: Any, where: str) -> Parts:
    """Return the image and the label of an item; the label of an image alone is None."""
    if isinstance(item, Mapping):
        image = [key for key in item if str(key).lower() in IMAGE_KEYS]
        label = [key for key in item if str(key).lower() in LABEL_KEYS]
        if len(image) != 1 or len(label) > 1:
            raise UserError(
                f"{where}: items have the keys {', '.join(map(str, item))}; which is the image and which the label is "
                "not clear: return pairs (image, label)"
            )
        return Parts(item[image[0]], item[label[0]] if label else None)
    if isinstance(item, tuple | list):
        if len(item) < 2:
            raise UserError(f"{where}: an item of {len(item)} parts is not (image, label)")
        return Parts(item[0], item[1])
    return Parts(item, None)


def image_bytes(image: Any, where: str) -> bytes:
    """Return an image as the bytes of a file; what is not a file yet becomes a lossless PNG."""
    if isinstance(image, Mapping) and {"bytes", "path"} & set(image):  # Hugging Face, not decoded
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise UserError(
                f"{where}: an array of {image.dtype} {image.shape} is not an image: uint8 (H, W) or (H, W, 3)"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UserError(
            f"{where}: {type(image).__name__} is not an image; return Pillow images, before any transform"
            " (transform=None)"
        )
    if image.mode not in PNG_MODES:
        image = image.convert("RGB")  # as it would be when read from a file
    out = BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def class_names(data: Any) -> tuple[str, ...]:
    """Return the class names that an object states, by index; empty where it states none."""
    feature = None
    if isinstance(features := getattr(data, "features", None), Mapping):
        feature = next((features[key] for key in features if str(key).lower() in LABEL_KEYS), None)
    for holder, name in ((feature, "names"), (data, "classes"), (data, "class_names")):
        names = getattr(holder, name, None)
        if isinstance(names, Sequence) and names and all(isinstance(text, str) for text in names):
            return tuple(names)
    return ()


def read_rows(source: PythonSource) -> tuple[Rows, str, dict[str, NDArray[np.generic]]]:
    """Read every item once; return the rows, a digest of their content, and columns of metadata.

    An object with a text attribute ``fingerprint`` or ``_fingerprint`` that names its content (Hugging Face datasets
    have one) and a column of labels is not decoded.

    Raises
    ------
    UserError
        There are no items, or a label is no whole number.
    """
    data, where = source.items(), source.where
    n = len(data)
    if not n:
        raise UserError(f"{where}: the dataset is empty")
    known = str(getattr(data, "fingerprint", "") or getattr(data, "_fingerprint", ""))
    column = _label_column(data) if known else None
    labels = np.full(n, NO_LABEL, dtype=np.int32)
    sizes = np.ones(n, dtype=np.int64)
    digest = hashlib.sha256(f"closerlook python {known}".encode())
    what = f"{where}: reading {n:,} items, for their labels and a digest of the images"
    for index in waiting_for(range(n), what):
        if column is not None:
            labels[index] = _label(column[index], index, where)
            continue
        with explaining(where, f"item {index}"):
            item = parts(data[index], where)
            raw = image_bytes(item.image, where)
        labels[index] = _label(item.label, index, where)
        sizes[index] = len(raw)
        digest.update(hashlib.sha256(_pixels(item.image) or raw).digest())
    names = getattr(data, "image_ids", None)
    if names is not None and len(names) != n:
        raise UserError(f"{where}: image_ids has {counted(len(names), 'name')} for {n} images")
    paths = tuple(map(str, names)) if names is not None else tuple(f"{index:07}" for index in range(n))
    return Rows(paths, labels, sizes), digest.hexdigest(), _metadata(data, n)


def _pixels(image: Any) -> bytes:
    """Return what identifies an image whatever wrote it as PNG; empty for bytes and files."""
    if isinstance(image, Image.Image):
        return f"{image.mode} {image.size}".encode() + image.tobytes()
    return f"{image.shape}".encode() + image.tobytes() if isinstance(image, np.ndarray) else b""


def _label_column(data: Any) -> Any:
    names = [name for name in getattr(data, "column_names", ()) or () if str(name).lower() in LABEL_KEYS]
    return data[names[0]] if len(names) == 1 else None


def _label(value: Any, index: int, where: str) -> int:
    if value is None:
        return NO_LABEL
    try:
        number = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number) or number < NO_LABEL:
        raise UserError(f"{where}: the label of item {index} is {value!r}, not a class index")
    return int(number)


def _metadata(data: Any, n: int) -> dict[str, NDArray[np.generic]]:
    """Return the columns of a WILDS set (``metadata_fields`` and ``metadata_array``); nothing for others."""
    fields, array = getattr(data, "metadata_fields", None), getattr(data, "metadata_array", None)
    if not isinstance(fields, Sequence) or array is None or len(array) != n:
        return {}
    values = np.asarray(array)
    return {str(name): values[:, place] for place, name in enumerate(fields) if str(name) != "y"}
