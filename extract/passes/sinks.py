"""Where a model's outputs go: a prediction store, or the accumulated statistics of a training set."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache_schema
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from extract.datasets.base import Dataset
from extract.planning.options import RunOptions

NO_PARTS: Mapping[str, NDArray[np.float32]] = MappingProxyType({})


class StoreSink:
    """Streams outputs into a prediction store; opened at the first batch, when the widths are known.

    Parameters
    ----------
    options, model, dataset, identity, record
        Of the run and the store.
    parts
        Further arrays that the store holds, each with its details.
    """

    def __init__(
        self,
        options: RunOptions,
        model: ModelCard,
        dataset: Dataset,
        identity: str,
        record: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._options, self._model, self._dataset = options, model, dataset
        self._identity, self._record, self._parts = identity, dict(record), parts
        self._writer: cache_schema.StoreWriter | None = None

    def append(
        self,
        features: NDArray[np.float32] | None,
        logits: NDArray[np.float32] | None,
        valid: NDArray[np.bool_],
        parts: Mapping[str, NDArray[np.float32]] = NO_PARTS,
    ) -> None:
        """Write the next rows."""
        if self._writer is None:
            self._writer = cache_schema.StoreWriter(
                self._options.cache,
                model=self._model,
                dataset=self._dataset.card,
                n_images=len(self._dataset),
                n_classes=None if logits is None else logits.shape[1],
                feature_width=None if features is None else features.shape[1],
                features_dtype=self._options.features_dtype,
                backend=self._options.backend,
                identity=self._identity,
                image_ids=self._dataset.image_ids,
                labels=self._dataset.labels,
                metadata=self._dataset.metadata,
                record=self._record,
                parts=self._parts,
            )
        self._writer.append(logits=logits, features=features, valid=valid, parts=parts)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Seal and publish, with what is only known at the end in the record."""
        assert self._writer is not None
        self._writer.record.update(record)
        self._writer.close()

    def abort(self) -> None:
        """Remove what is staged."""
        if self._writer is not None:
            self._writer.abort()


class ReferenceSink:
    """Accumulates a training set's statistics and its class-balanced bank; nothing per image is kept beyond it."""

    def __init__(
        self, options: RunOptions, model: ModelCard, dataset: Dataset, identity: str, record: Mapping[str, Any]
    ) -> None:
        self._options, self._model, self._dataset = options, model, dataset
        self._identity, self._record = identity, dict(record)
        self._accumulator: ReferenceAccumulator | None = None
        self._rows = 0

    @property
    def card(self) -> DatasetCard:
        """The dataset's card."""
        return self._dataset.card

    def append(
        self,
        features: NDArray[np.float32] | None,
        logits: NDArray[np.float32] | None,
        valid: NDArray[np.bool_],
        parts: Mapping[str, NDArray[np.float32]] = NO_PARTS,
    ) -> None:
        """Add the next rows; a reference keeps no further arrays of images."""
        del parts
        if logits is None:
            raise ValueError(f"a reference needs logits, and {self._model.id} has none on {self.card.id}")
        if features is None:
            raise ValueError(f"a reference needs features, and {self._model.id} gives logits alone")
        start, self._rows = self._rows, self._rows + len(valid)
        if self._accumulator is None:
            per_class = int(self.card.extra.get("bank_per_class", 50))
            self._accumulator = ReferenceAccumulator(
                logits.shape[1], features.shape[1], per_class=per_class, seed=int(self.card.extra.get("bank_seed", 0)),
                # A zero-shot head acts on unit features, so its detectors need statistics of those.
                normalize=self._model.head_kind == "zero-shot",
                unit="unit" in self._options.arrays,
            )  # fmt: skip
        self._accumulator.update(
            features[valid],
            logits[valid],
            self._dataset.labels[start : self._rows][valid],
            ids=[self._dataset.image_ids[start + int(i)] for i in np.flatnonzero(valid)],
        )

    def finish(self, record: Mapping[str, Any]) -> None:
        """Seal and publish."""
        assert self._accumulator is not None
        cache_schema.write_reference(
            self._options.cache,
            model=self._model,
            dataset=self.card,
            arrays=self._accumulator.arrays(),
            identity=self._identity,
            backend=self._options.backend,
            # Detectors must know which space the sums are in.
            record={**self._record, **record, "reference": dict(self._accumulator.options())},
        )

    def abort(self) -> None:
        """Nothing is staged before the end."""
