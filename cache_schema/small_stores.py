"""Reads the other kinds of stores: heads, references, summaries, texts; their arrays are loaded when asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.centred import decode
from cache_schema.errors import UserError, nearest
from cache_schema.store import Store


class HeadStore(Store):
    """What turns a model's features into logits of one class space, with one prompt set."""

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """(C, D) float32."""
        return self.read("weight")

    @cached_property
    def bias(self) -> NDArray[np.float32]:
        """(C,) float32, added last; a SigLIP's ``logit_bias`` is in it already."""
        return self.read("bias")

    @cached_property
    def text_sum(self) -> NDArray[np.float32] | None:
        """(C, D) float32: sum over templates of unit text embeddings; None where it was not stored."""
        return self.read("text_sum") if self.has("text_sum") else None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names by index."""
        return tuple(self.read_text("class_name"))

    @property
    def n_classes(self) -> int:
        """C."""
        return self.shape("weight")[0]

    @property
    def feature_width(self) -> int:
        """D."""
        return self.shape("weight")[1]

    @property
    def class_space(self) -> str:
        """Name of the space its classes are in."""
        return str(self.details["class_space"])

    @property
    def prompt_set(self) -> str:
        """Name of the prompt set; empty for a model's own head."""
        return str(self.details["prompt_set"])

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt set's templates."""
        return tuple(self.details["templates"])

    @property
    def n_templates(self) -> int:
        """How many templates ``text_sum`` is summed over."""
        return int(self.details["n_templates"])

    @property
    def logit_scale(self) -> float | None:
        """Multiplier of the cosine; None for a linear head."""
        value = self.details["logit_scale"]
        return None if value is None else float(value)

    @property
    def logit_bias(self) -> float | None:
        """A SigLIP's additive bias, None otherwise; part of ``bias`` already."""
        value = self.details["logit_bias"]
        return None if value is None else float(value)

    @property
    def normalize_features(self) -> bool:
        """Whether features are scaled to unit norm first."""
        return bool(self.details["normalize_features"])

    @property
    def affine(self) -> bool:
        """Whether ``logits`` gives the model's own logits."""
        return bool(self.details["affine"])

    @property
    def residual(self) -> float | None:
        """Largest relative difference to the model's own logits on the first batch; None if never
        compared.
        """
        value = self.details["residual"]
        return None if value is None else float(value)

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Compute logits from features.

        Parameters
        ----------
        features : ndarray of shape (n, D)
            As stored, not normalised.

        Returns
        -------
        ndarray of shape (n, C)
            Float32: ``scale * (f @ weight.T) + bias``, f normalised where ``normalize_features``; scale is 1
            where ``logit_scale`` is None. A feature row of zeros gives NaN where features are normalised.
        """
        if not self.affine:
            raise UserError(
                f"the head of {self.model.id} is not affine (residual {self.residual}): its logits"
                " cannot be computed from features; use the stored ones"
            )
        values = np.asarray(features, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.feature_width:
            raise UserError(
                f"head of {self.model.id}: features are {values.shape}, expected (n, {self.feature_width})"
            )
        if self.normalize_features:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = values / np.linalg.norm(values, axis=1, keepdims=True)
        out: NDArray[np.float32] = values @ self.weight.T
        if self.logit_scale is not None:
            out *= np.float32(self.logit_scale)
        out += self.bias
        return out


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


class TextStore(Store):
    """Embeddings of captions, for retrieval."""

    @cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """(m, D) float32, unit norm."""
        return self.read("embeddings")

    @cached_property
    def text(self) -> list[str]:
        """The m captions."""
        return self.read_text("text")

    @cached_property
    def image_index(self) -> NDArray[np.int32]:
        """(m,) int32: row of the image in the dataset's order."""
        return self.read("image_index")


SMALL_STORES: dict[str, type[Store]] = {
    "head": HeadStore,
    "reference": ReferenceStore,
    "summary": SummaryStore,
    "texts": TextStore,
}
