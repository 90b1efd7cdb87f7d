"""References: a training set as post-hoc detectors need it, its arrays, and the store that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.builder import StoreBuilder
from cache_schema.centred import decode
from cache_schema.errors import UserError
from cache_schema.identities import identity as identity_of
from cache_schema.kinds.writing import dataset_fields, model_fields
from cache_schema.records import DatasetCard, ModelCard
from cache_schema.store import Store, open_published


@dataclass(frozen=True, kw_only=True)
class ReferenceArrays:
    """What post-hoc detectors need of a training set. C classes, D features, m bank images, n images in all.

    Attributes
    ----------
    n
        Images seen (valid ones).
    class_count, correct_count, predicted_count
        (C,) int64: images of a class; of these, predicted right; images predicted as the class.
    feature_sum, correct_feature_sum
        (C, D) float64: sums of features of a class, and of its rightly predicted images.
    softmax_sum
        (C, C) float64: row k is the sum of softmax over the images predicted as k.
    second_moment
        (D, D) float64: sum over images of the outer product of the features.
    max_logit_sum, logsumexp_sum
        Sums over images.
    correct_logit_sum
        (C, C) float64 or None: row k is the sum of logits over the images of class k predicted right.
    bank_features
        (m, D) float16 or float32, about the same number of every class.
    bank_logits, bank_logit_center
        (m, C) float16 row-centred and (m,) float32, as ``cache_schema.centred.encode`` gives them.
    bank_labels
        (m,) int32.
    """

    n: int
    class_count: NDArray[np.int64]
    feature_sum: NDArray[np.float64]
    correct_count: NDArray[np.int64]
    correct_feature_sum: NDArray[np.float64]
    predicted_count: NDArray[np.int64]
    softmax_sum: NDArray[np.float64]
    second_moment: NDArray[np.float64]
    max_logit_sum: float
    logsumexp_sum: float
    bank_features: NDArray[Any]
    bank_logits: NDArray[np.float16]
    bank_logit_center: NDArray[np.float32]
    bank_labels: NDArray[np.int32]
    correct_logit_sum: NDArray[np.float64] | None = None

    def decoded_bank_logits(self) -> NDArray[np.float32]:
        """Return the bank's logits, (m, C) float32."""
        return decode(self.bank_logits, self.bank_logit_center)


_DETAILS = ("n", "max_logit_sum", "logsumexp_sum")


class ReferenceStore(Store):
    """A training set as post-hoc detectors need it; the attributes of :class:`ReferenceArrays`, read when
    asked for.
    """

    @cached_property
    def n(self) -> int:
        """Images seen; ``len(store)`` is the number of classes."""
        return int(self.details["n"])

    @cached_property
    def max_logit_sum(self) -> float:
        """Sum of the largest logits."""
        return float(self.details["max_logit_sum"])

    @cached_property
    def logsumexp_sum(self) -> float:
        """Sum of the log-sum-exp of the logits."""
        return float(self.details["logsumexp_sum"])

    def __getattr__(self, name: str) -> Any:
        if name not in {field.name for field in fields(ReferenceArrays)}:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = self.read(name) if self.has(name) else None
        self.__dict__[name] = value
        return value

    def arrays(self) -> ReferenceArrays:
        """Return everything in memory."""
        return ReferenceArrays(**{field.name: getattr(self, field.name) for field in fields(ReferenceArrays)})

    def decoded_bank_logits(self) -> NDArray[np.float32]:
        """Return the bank's logits, (m, C) float32."""
        return decode(self.bank_logits, self.bank_logit_center)

    @staticmethod
    def merge(parts: Sequence[ReferenceStore | ReferenceArrays]) -> ReferenceArrays:
        """Return the reference of several disjoint parts of a training set: sums added, banks one after
        another.

        Parameters
        ----------
        parts
            At least one, of the same model and class space. ``correct_logit_sum`` is None unless all have it.
        """
        if not parts:
            raise UserError("nothing to merge")
        merged: dict[str, Any] = {}
        for field in fields(ReferenceArrays):
            values = [getattr(part, field.name) for part in parts]
            if any(value is None for value in values):
                merged[field.name] = None
            elif field.name.startswith("bank_"):
                _same_shape(field.name, [value.shape[1:] for value in values])
                merged[field.name] = np.concatenate(values)
            else:
                _same_shape(field.name, [np.shape(value) for value in values])
                merged[field.name] = sum(values[1:], start=values[0])
        return ReferenceArrays(**merged)


def _same_shape(name: str, shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        raise UserError(
            f"references of different models or class spaces cannot be merged: {name} is {shapes}"
        )


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
        What was gathered over the training set. The bank's order is kept, it may be empty; sums must be
        finite.
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
        builder.details = {name: getattr(reference, name) for name in _DETAILS}
        for field in fields(reference):
            value = getattr(reference, field.name)
            if value is None or field.name in _DETAILS:
                continue
            array = np.asarray(value)
            if field.name != "bank_logits" and not np.isfinite(array).all():
                raise UserError(f"{model.id} on {dataset.id}: {field.name} holds NaN or infinity")
            builder.add(field.name, array)
        store = open_published(builder.publish(len(reference.class_count)))
    assert isinstance(store, ReferenceStore)
    return store
