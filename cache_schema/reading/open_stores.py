"""Open a store of any kind: by its path, its address or its reader."""

from __future__ import annotations

import importlib
import time
from functools import lru_cache
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.base import StoreReader
from cache_schema.reading.places.addresses import is_address
from cache_schema.reading.places.opening import open_place
from cache_schema.reading.store import Store
from closerlook_common.errors import UnsealedStoreError

_TRIES, _PAUSE_SECONDS = 50, 0.01

_KINDS = {
    "predictions": "cache_schema.reading.store:PredictionStore",
    "head": "cache_schema.reading.kinds.heads:HeadStore",
    "reference": "cache_schema.reading.kinds.references:ReferenceStore",
    "summary": "cache_schema.reading.kinds.summaries:SummaryStore",
    "texts": "cache_schema.reading.kinds.texts:TextStore",
}
"""Kind -> class, imported when a store of the kind is opened."""


def open_store(path: Path | str) -> Store:
    """Open a published store of any kind.

    Parameters
    ----------
    path
        A ``.zarr`` folder or an ``.h5`` file, or the address of one.

    Returns
    -------
    Store
        PredictionStore, HeadStore, ReferenceStore, SummaryStore or TextStore.

    Raises
    ------
    UnsealedStoreError, NewerSchemaError, CorruptStoreError
        The store cannot be used; the message says why.
    """
    if is_address(path):
        folder, _, name = str(path).rstrip("/").rpartition("/")
        place = open_place(folder)
        return store_of(place.reader(name))
    return store_of(reader_of(Path(path)))


def open_published(path: Path) -> Store:
    """Open a store that was just published, even if another writer is replacing it.

    Raises
    ------
    UnsealedStoreError
        The store was removed, or replaced by one of the other backend.
    """
    for again in reversed(range(_TRIES)):
        try:
            return open_store(path)
        except UnsealedStoreError:
            if not again:
                raise
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError


def store_of(reader: StoreReader) -> Store:
    """Open a store through a reader."""
    header = reader.header()
    reader.check()
    return _class_of(header["kind"])(reader, header)


def listed_store(reader: StoreReader, kind: str) -> Store:
    """Return a store of a known kind; its reader opens it when it is first used."""
    return _class_of(kind)(reader, {"kind": kind})


@lru_cache
def _class_of(kind: str) -> type[Store]:
    module, _, name = _KINDS[kind].partition(":")
    found: type[Store] = getattr(importlib.import_module(module), name)
    return found
