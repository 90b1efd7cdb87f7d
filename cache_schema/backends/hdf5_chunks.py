"""Decode chunks of an HDF5 store.

The HDF5 library decodes each chunk from a file in memory that this process has made, so that it reads only metadata of
its own. The frame of the chunk is checked before.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.blosc_blocks import check_frame

_KEPT = 16
"""Largest number of files kept in memory, one per shape and type of chunk; each holds one compressed chunk."""
_CHECKSUM = 4
_lock = threading.Lock()
_files: OrderedDict[tuple[Any, ...], tuple[h5py.File, h5py.h5d.DatasetID]] = OrderedDict()


def decode_chunk(raw: bytes, chunks: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the elements of a chunk.

    Parameters
    ----------
    raw
        Bytes of the chunk in the file: a Blosc2 frame and its checksum.
    chunks, dtype
        Shape of a chunk, type of the elements.

    Raises
    ------
    ValueError, OSError, RuntimeError
        The frame does not fit the chunk, or bytes were changed.
    """
    check_frame(raw[:-_CHECKSUM], chunks, dtype.itemsize)
    out = np.empty(chunks, dtype)
    with _lock:
        dataset = _dataset(chunks, dtype)
        dataset.write_direct_chunk((0,) * len(chunks), raw)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return out


def _dataset(chunks: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.h5d.DatasetID:
    key = (os.getpid(), chunks, dtype.name)
    if key not in _files:
        while len(_files) >= _KEPT:
            _, (old, _) = _files.popitem(last=False)
            old.close()
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_core(1 << 20, False)
        name = f"closerlook-chunk-{os.getpid()}-{'x'.join(map(str, chunks))}-{dtype.name}"
        file = h5py.File(h5py.h5f.create(name.encode(), h5py.h5f.ACC_TRUNC, fapl=access))
        access.close()
        dataset = file.create_dataset(
            "x",
            shape=chunks,
            dtype=dtype,
            chunks=chunks,
            fletcher32=True,
            rdcc_nbytes=0,  # without a cache, which would return an earlier chunk
            **hdf5plugin.Blosc2(cname="zstd", clevel=3, filters=hdf5plugin.Blosc2.BITSHUFFLE),
        )
        _files[key] = file, dataset.id
    _files.move_to_end(key)
    return _files[key][1]


def _forget_in_child() -> None:
    """Reset after a fork: another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
