"""Write texts: embeddings of captions, for retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cache_schema.format.identities import identity as identity_of
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.reading.kinds.texts import TextStore
from cache_schema.reading.open_stores import open_published
from cache_schema.writing.builder import StoreBuilder
from cache_schema.writing.kinds.writing import dataset_fields, finite_floats, model_fields
from closerlook_common.errors import UserError


def write_texts(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    embeddings: ArrayLike,
    text: Sequence[str],
    image_index: ArrayLike,
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> TextStore:
    """Write a text store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, overwrite
        As for :func:`cache_schema.write_store`.
    embeddings : array of shape (m, D)
        Unit-norm rows (to 1e-3).
    text
        The m captions.
    image_index : array of shape (m,)
        Row of the image that a caption belongs to.
    identity
        Computed from model, dataset and captions when None.
    """
    values = finite_floats("embeddings", embeddings, np.float32, 2)
    m = len(values)
    index = np.asarray(image_index)
    if m == 0:
        raise UserError(f"{model.id} on {dataset.id}: there are no captions")
    if len(text) != m or index.shape != (m,) or index.dtype.kind not in "iu" or (index < 0).any():
        raise UserError(
            f"{model.id} on {dataset.id}: {m} embeddings need {m} captions and {m} image rows from 0 on"
            f" (given: {len(text)} captions, image_index {index.dtype} of shape {index.shape})"
        )
    norms = np.linalg.norm(values, axis=1)
    if (np.abs(norms - 1) > 1e-3).any():
        row = int(np.flatnonzero(np.abs(norms - 1) > 1e-3)[0])
        raise UserError(f"{model.id} on {dataset.id}: embedding {row} has norm {norms[row]:.4g}; they must be 1")
    described = {
        "kind": "texts",
        **model_fields(model),
        "dataset": dataset_fields(dataset),
        "text": hashlib.sha256("\0".join(text).encode()).hexdigest(),
    }
    builder = StoreBuilder(
        cache_path,
        "texts",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.add("embeddings", values)
        builder.add_text("text", list(text))
        builder.add("image_index", index.astype(np.int32))
        store = open_published(builder.publish(m))
    assert isinstance(store, TextStore)
    return store
