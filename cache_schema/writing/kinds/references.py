"""Write references: statistics of a training set for post-hoc detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.format.identities import identity as identity_of
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.reading.kinds.references import DETAILS, OPTIONAL_DETAILS, ReferenceArrays, ReferenceStore
from cache_schema.reading.open_stores import open_published
from cache_schema.writing.builder import StoreBuilder
from cache_schema.writing.kinds.writing import dataset_fields, model_fields
from closerlook_common.errors import UserError


def write_reference(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    arrays: ReferenceArrays | Mapping[str, Any],
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> ReferenceStore:
    """Write a reference store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, identity, overwrite
        As for :func:`cache_schema.write_store`.
    arrays
        Statistics of the training set. The bank keeps its order and may be empty; sums must be finite.
    """
    reference = arrays if isinstance(arrays, ReferenceArrays) else ReferenceArrays(**arrays)
    described = {"kind": "reference", **model_fields(model), "dataset": dataset_fields(dataset)}
    builder = StoreBuilder(
        cache_path,
        "reference",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.details = {name: getattr(reference, name) for name in DETAILS}
        if reference.bank_keys is not None:
            builder.details |= {name: getattr(reference, name) for name in OPTIONAL_DETAILS}
        for field in fields(reference):
            value = getattr(reference, field.name)
            if value is None or field.name in DETAILS or field.name in OPTIONAL_DETAILS:
                continue
            array = np.asarray(value)
            if field.name != "bank_logits" and not np.isfinite(array).all():
                raise UserError(f"{model.id} on {dataset.id}: {field.name} holds NaN or infinity")
            builder.add(field.name, array)
        store = open_published(builder.publish(len(reference.class_count)))
    assert isinstance(store, ReferenceStore)
    return store
