"""Summaries: per-image statistics as named columns; the store that holds them, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cache_schema.builder import StoreBuilder
from cache_schema.columns import add_columns
from cache_schema.errors import UserError, nearest
from cache_schema.identities import identity as identity_of
from cache_schema.kinds.writing import dataset_fields, model_fields
from cache_schema.records import DatasetCard, ModelCard
from cache_schema.store import Store, open_published


class SummaryStore(Store):
    """Per-image statistics: the columns that nearly every metric is computed from."""

    def columns(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(item["name"] for item in self.details["columns"])

    @property
    def variant(self) -> str:
        """Which of several summaries of the same outputs (a class subset, a temperature); empty for the plain
        one.
        """
        return str(self.details["variant"])

    def column(self, name: str) -> NDArray[Any]:
        """Return a column, (n,) or (n, k); text as an object array of str.

        Parameters
        ----------
        name
            One of ``columns()``; an unknown one is answered with the nearest.
        """
        for item in self.details["columns"]:
            if item["name"] == name:
                return self._column(item)
        raise UserError(f"{self.path.name} has no column {name!r}{nearest(name, self.columns())}")


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
        float32, float64, bool; others are widened where that loses nothing.
    variant
        Which of several summaries of the same outputs this is (a class subset, a temperature); part of the
        identity.
    identity
        Computed from model, dataset, variant, the columns' names and ``record["source_digest"]`` when None.
    """
    if not columns:
        raise UserError(f"{model.id} on {dataset.id}: a summary needs at least one column")
    n = len(next(iter(columns.values())))
    if n == 0:
        raise UserError(f"{model.id} on {dataset.id}: the summary has no rows, there is nothing to store")
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
