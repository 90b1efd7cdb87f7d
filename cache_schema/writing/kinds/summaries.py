"""Write summaries: per-image statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache_schema.format.identities import identity as identity_of
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.reading.kinds.summaries import SummaryStore
from cache_schema.reading.open_stores import open_published
from cache_schema.writing.builder import StoreBuilder
from cache_schema.writing.columns import add_columns
from cache_schema.writing.kinds.writing import dataset_fields, model_fields
from closerlook_common.errors import UserError


def write_summary(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    columns: Mapping[str, Any],
    variant: str = "",
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> SummaryStore:
    """Write a summary store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, overwrite
        As for :func:`cache_schema.write_store`.
    columns
        Name -> array of shape (n,) or (n, k), or n strings. dtypes: int8, int16, int32, int64, uint8,
        float32, float64, bool; others are widened if that is lossless.
    variant
        Name of one of several summaries of the same outputs (a class subset, a temperature); part of the identity.
    identity
        Computed from model, dataset, variant, the columns' names and ``record["source_digest"]`` when None.
    """
    if not columns:
        raise UserError(f"{model.id} on {dataset.id}: a summary needs at least one column")
    n = len(next(iter(columns.values())))
    if n == 0:
        raise UserError(f"{model.id} on {dataset.id}: the summary has no rows, so there is nothing to store")
    described = {
        "kind": "summary",
        **model_fields(model),
        "dataset": dataset_fields(dataset),
        "variant": variant,
        "columns": list(columns),
        "source_digest": (record or {}).get("source_digest", ""),
    }
    builder = StoreBuilder(
        cache_path,
        "summary",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.details = {"variant": variant, "columns": add_columns(builder, "column.", columns, n)}
        store = open_published(builder.publish(n))
    assert isinstance(store, SummaryStore)
    return store
