"""Copy a store to another backend, block by block; the digest stays the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache_schema.format.naming import head_name
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import layout
from cache_schema.reading.open_stores import open_published
from cache_schema.reading.store import Store
from cache_schema.writing.builder import StoreBuilder


def store_title(store: Store) -> str:
    """Return the first part of a store's file name: the dataset's id, or class space and prompt set of a head."""
    if not store.dataset_id:
        return head_name(str(store.details["class_space"]), str(store.details["prompt_set"]))
    return store.dataset_id


def convert_store(store: Store, cache_path: Path | str, backend: str, *, overwrite: bool = False) -> Store:
    """Write the same store with another backend (or the same one, elsewhere).

    Parameters
    ----------
    store
        Store to copy; one shard at a time is in memory.
    cache_path
        The cache to write to; may be the store's own.
    backend
        ``zarr`` or ``hdf5``.
    overwrite
        Replace a published store of the same identity, of either backend.

    Returns
    -------
    Store
        Its digest equals ``store.digest``.

    Raises
    ------
    CorruptStoreError
        The content is not the one that was sealed; nothing is published.
    """
    builder = StoreBuilder(
        cache_path,
        store.kind,
        model=ModelCard.from_record(store.header["model"]),
        dataset=None if store.header["dataset"] is None else DatasetCard.from_record(store.header["dataset"]),
        name=store_title(store),
        identity=store.identity,
        backend=backend,
        overwrite=overwrite,
    )
    with builder:
        builder.copy_header(store.header)
        for name, entry in store.header["seal"]["arrays"].items():
            shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
            stream = builder.stream(name, shape, dtype)
            step = layout(shape, dtype.itemsize).shard_rows
            for start in range(0, shape[0], step):
                stream.push(store.read(name, start, start + step))
        return open_published(builder.publish(len(store)))
