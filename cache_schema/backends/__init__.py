"""The backends, Zarr and HDF5: their readers and writers by name.

Only places and copies, which move files, distinguish backends outside this folder.

Imports the format; ``reading`` and ``writing`` import it.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from cache_schema.backends.base import StoreFiles, StoreReader
from cache_schema.format.naming import SUFFIXES, backend_of
from closerlook_common.errors import UserError

BACKENDS = {
    "zarr": "cache_schema.backends.zarr_v3:ZarrFiles,cache_schema.backends.zarr_v3:ZarrReader",
    "hdf5": "cache_schema.backends.hdf5:Hdf5Files,cache_schema.backends.hdf5_reader:Hdf5Reader",
}


def files_of(backend: str, path: Path) -> StoreFiles:
    """Return the writer of a new store at ``path``."""
    module, _, name = BACKENDS[backend].split(",")[0].partition(":")
    writer = getattr(importlib.import_module(module), name)(path)
    assert isinstance(writer, StoreFiles)
    return writer


def reader_of(path: Path) -> StoreReader:
    """Return the reader of the store at ``path``, chosen by its suffix."""
    backend = backend_of(path)
    if backend is None:
        raise UserError(f"{path} is not a store: its name does not end in any of {', '.join(SUFFIXES.values())}")
    module, _, name = BACKENDS[backend].split(",")[1].partition(":")
    reader = getattr(importlib.import_module(module), name)(path)
    assert isinstance(reader, StoreReader)
    return reader
