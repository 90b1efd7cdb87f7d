"""Read references: statistics of a training set for post-hoc detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.centred import decode
from cache_schema.reading.store import Store
from closerlook_common.errors import CorruptStoreError, UserError


@dataclass(frozen=True, kw_only=True)
class ReferenceArrays:
    """Statistics of a training set for post-hoc detectors. C classes, D features, m bank images, n images in all.

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
        (m, C) float16 row-centred and (m,) float32, as ``cache_schema.format.centred.encode`` gives them.
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


DETAILS = ("n", "max_logit_sum", "logsumexp_sum")
"""Fields of :class:`ReferenceArrays` that a store keeps as numbers in its attributes, not as arrays."""


class ReferenceStore(Store):
    """Statistics of a training set: the attributes of :class:`ReferenceArrays`, read when first used."""

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
        if name == "bank_labels" and value is not None and ((value < 0) | (value >= len(self))).any():
            raise CorruptStoreError(f"{self.title}: bank_labels holds classes outside 0 to {len(self) - 1}")
        if name.endswith("_count") and value is not None and (value < 0).any():
            raise CorruptStoreError(f"{self.title}: {name} holds negative counts")
        self.__dict__[name] = value
        return value

    def arrays(self) -> ReferenceArrays:
        """Return all arrays in memory."""
        return ReferenceArrays(**{field.name: getattr(self, field.name) for field in fields(ReferenceArrays)})

    def decoded_bank_logits(self) -> NDArray[np.float32]:
        """Return the bank's logits, (m, C) float32."""
        return decode(self.bank_logits, self.bank_logit_center)

    @staticmethod
    def merge(parts: Sequence[ReferenceStore | ReferenceArrays]) -> ReferenceArrays:
        """Merge references of disjoint parts of a training set: add sums, concatenate banks.

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
        raise UserError(f"references of different models or class spaces cannot be merged: {name} is {shapes}")
