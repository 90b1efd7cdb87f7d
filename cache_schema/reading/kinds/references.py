"""Read references: statistics of a training set for post-hoc detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.centred import LARGEST, decode
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
    bank_keys
        (m,) int64 or None: the hashes by which the rows were chosen, ascending in each class, so that banks of disjoint
        parts can be merged exactly.
    bank_per_class, bank_seed
        Rows of each class in the bank and the key of the hash; given with ``bank_keys``.
    unit_features
        Whether all features were scaled to unit length first; given with ``bank_keys``.
    skipped
        Images that were left out; given with ``bank_keys``.
    unit_feature_sum, unit_second_moment
        (C, D) and (D, D) float64 or None: as ``feature_sum`` and ``second_moment``, of features at unit length. None
        where these are that already.
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
    bank_keys: NDArray[np.int64] | None = None
    bank_per_class: int | None = None
    bank_seed: int | None = None
    unit_features: bool | None = None
    skipped: int | None = None
    unit_feature_sum: NDArray[np.float64] | None = None
    unit_second_moment: NDArray[np.float64] | None = None

    def decoded_bank_logits(self) -> NDArray[np.float32]:
        """Return the bank's logits, (m, C) float32."""
        return decode(self.bank_logits, self.bank_logit_center)


DETAILS = ("n", "max_logit_sum", "logsumexp_sum")
"""Fields of :class:`ReferenceArrays` that a store keeps as numbers in its attributes, not as arrays."""

BANK_OPTIONS = ("bank_per_class", "bank_seed", "unit_features")
"""Fields that must be equal for banks to be merged exactly; a store with ``bank_keys`` keeps them as ``DETAILS``."""

OPTIONAL_DETAILS = (*BANK_OPTIONS, "skipped")


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
        if name in OPTIONAL_DETAILS:
            return self.details.get(name)
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
        """Merge references of disjoint parts of a training set: add sums, join banks.

        Parameters
        ----------
        parts
            At least one, of the same model and class space. What not all have (``correct_logit_sum``, the sums of unit
            features) is None.

        Returns
        -------
        ReferenceArrays
            Where all parts have ``bank_keys``, the bank is that of one pass over all images, bit for bit, and sums
            differ from those of one pass by rounding (float64). Otherwise all rows of the banks are kept.

        Raises
        ------
        UserError
            Shapes or the choices of the banks differ, or the parts share images.
        """
        if not parts:
            raise UserError("nothing to merge")
        exact = all(part.bank_keys is not None for part in parts)
        merged: dict[str, Any] = {}
        for field in fields(ReferenceArrays):
            values = [getattr(part, field.name) for part in parts]
            if field.name in BANK_OPTIONS:
                merged[field.name] = _common(field.name, values) if exact else None
            elif any(value is None for value in values):
                merged[field.name] = None
            elif field.name.startswith("bank_"):
                _same_shape(field.name, [value.shape[1:] for value in values])
                merged[field.name] = np.concatenate(values)
            else:
                _same_shape(field.name, [np.shape(value) for value in values])
                merged[field.name] = sum(values[1:], start=values[0])
        if exact:
            merged |= _chosen(merged, [part.bank_keys for part in parts], [part.bank_features for part in parts])
        return ReferenceArrays(**merged)


def _same_shape(name: str, shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        raise UserError(f"references of different models or class spaces cannot be merged: {name} is {shapes}")


def _common(name: str, values: list[Any]) -> Any:
    if any(value != values[0] for value in values):
        raise UserError(f"references whose {name} differ cannot be merged: {', '.join(map(str, values))}")
    return values[0]


def _chosen(
    joined: dict[str, Any], keys: list[NDArray[np.int64] | None], features: list[NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the rows of joined banks that one pass over all images would have kept, in its order."""
    each = np.concatenate([np.unique(part) for part in keys if part is not None])
    if len(np.unique(each)) < len(each):
        raise UserError("references that share images cannot be merged: the same rows are in the banks of several")
    labels = joined["bank_labels"]
    order = np.lexsort((joined["bank_keys"], labels))
    first = np.searchsorted(labels[order], labels[order], side="left")
    kept = order[np.arange(len(order)) - first < joined["bank_per_class"]]
    chosen = {name: joined[name][kept] for name in joined if name in _BANK}
    if chosen["bank_features"].dtype == np.float32:
        whole = np.repeat([part.dtype == np.float32 for part in features], [len(part) for part in features])
        if not len(kept) or float(np.abs(chosen["bank_features"]).max()) <= float(LARGEST):
            chosen["bank_features"] = chosen["bank_features"].astype(np.float16)
        elif not whole[kept].all():
            raise UserError("banks of float16 and float32 features cannot be merged exactly: features exceed float16")
    return chosen


_BANK = ("bank_features", "bank_logits", "bank_logit_center", "bank_labels", "bank_keys")
