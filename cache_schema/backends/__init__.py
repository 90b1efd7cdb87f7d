"""The backends: name -> where its reader and its writer are. Nothing outside this folder tells one from
another, but for places and copies, which move the very files.

Imports the format and the staging of files; readers of stores and writers import it.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from cache_schema.backends.base import StoreFiles, StoreReader
from cache_schema.errors import UserError
from cache_schema.naming import SUFFIXES, backend_of

BACKENDS = {
    "zarr": "cache_schema.backends.zarr_v3:ZarrFiles,ZarrReader",
    "hdf5": "cache_schema.backends.hdf5:Hdf5Files,Hdf5Reader",
}


def files_of(backend: str, path: Path) -> StoreFiles:
    """Return the writer of a new store at ``path``."""
    module, _, names = BACKENDS[backend].partition(":")
    writer = getattr(importlib.import_module(module), names.split(",")[0])(path)
    assert isinstance(writer, StoreFiles)
    return writer


def reader_of(path: Path) -> StoreReader:
    """Return the reader of the store at ``path``, chosen by its suffix."""
    backend = backend_of(path)
    if backend is None:
        raise UserError(f"{path} is no store: its name ends in none of {', '.join(SUFFIXES.values())}")
    module, _, names = BACKENDS[backend].partition(":")
    reader = getattr(importlib.import_module(module), names.split(",")[1])(path)
    assert isinstance(reader, StoreReader)
    return reader
