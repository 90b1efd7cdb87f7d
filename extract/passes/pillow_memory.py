"""The memory of a Pillow image, without a copy."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class _Array(ctypes.Structure):
    """``struct ArrowArray`` of Arrow's C data interface."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def words_of(image: Image.Image) -> tuple[NDArray[np.uint32], object]:
    """Return the pixels of an RGB image as (h, w) uint32, a fourth byte after the three, and what keeps them alive.

    They are copied where the image lies in several pieces of memory, as those above some 4 million pixels do.
    """
    height, width = image.height, image.width
    try:
        _, capsule = image.__arrow_c_array__()
    except (ValueError, MemoryError):
        copied = np.zeros((height, width, 4), np.uint8)
        copied[..., :3] = np.asarray(image)
        return copied.view(np.uint32)[..., 0], copied
    array = ctypes.cast(_pointer_of(capsule, b"arrow_array"), ctypes.POINTER(_Array)).contents
    address = array.children[0].contents.buffers[1]
    words: NDArray[np.uint32] = np.ctypeslib.as_array((ctypes.c_uint32 * (height * width)).from_address(address))
    return words.reshape(height, width), capsule
