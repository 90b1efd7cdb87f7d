"""A training set as detectors see it: sums over all of it, and a bank of some of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.walks import Bank
from analyze.metrics._arrays import numbers
from analyze.metrics._checks import switch, whole_number, whole_numbers
from cache_schema.writing.kinds.reference_accumulator import SUMS, ReferenceAccumulator
from closerlook_common.errors import UserError

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of a training set, from arrays or from a reference store.

    Attributes
    ----------
    n
        Rows seen.
    class_count, correct_count, predicted_count
        (C,) int64: rows of each class, those of them predicted right, rows predicted as each class.
    feature_sum, correct_feature_sum
        (C, D) float64: sums of features of each class, and of its rows that were predicted right.
    softmax_sum
        (C, C) float64: row k is the sum of the softmax over rows predicted as k.
    correct_logit_sum
        (C, C) float64 or None: row k is the sum of logits over rows of class k predicted right.
    second_moment
        (D, D) float64: sum of f f^T.
    max_logit_sum, logsumexp_sum
        Sums of the largest logit and of the log-sum-exp.
    bank_features, bank_logits, bank_labels
        (m, D), (m, C) and (m,): rows of the training set, balanced over classes, or all of them.
    whole
        Whether the bank is the whole training set.
    unit_features
        Whether all this is of features that were scaled to unit length.
    source
        Where it came from, for the results.
    unit_feature_sum, unit_second_moment
        ``feature_sum`` and ``second_moment`` of features at unit length, None where a store does not hold them.
    """

    n: int
    class_count: NDArray[np.int64]
    feature_sum: Float64
    correct_count: NDArray[np.int64]
    correct_feature_sum: Float64
    predicted_count: NDArray[np.int64]
    softmax_sum: Float64
    correct_logit_sum: Float64 | None
    second_moment: Float64
    max_logit_sum: float
    logsumexp_sum: float
    bank_features: NDArray[np.floating[Any]]
    bank_logits: NDArray[np.floating[Any]]
    bank_labels: NDArray[np.int32]
    whole: bool = False
    unit_features: bool = False
    source: str = "arrays"
    unit_feature_sum: Float64 | None = None
    unit_second_moment: Float64 | None = None

    @staticmethod
    def from_arrays(
        features: NDArray[np.floating[Any]],
        logits: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        per_class: int | None = None,
        *,
        seed: int = 0,
        normalize: bool = False,
    ) -> Reference:
        """Return the reference of a training set in memory.

        Parameters
        ----------
        features : ndarray of shape (n, D)
            Penultimate features.
        logits : ndarray of shape (n, C)
            Logits.
        labels : ndarray of shape (n,)
            Class indices; rows with a negative label or a value that is not finite are left out.
        per_class
            Rows of each class in the bank; None takes the whole set as the bank (float32 arrays are kept, not copied:
            do not write to them afterwards).
        seed
            Of the choice of the bank.
        normalize
            Scale features to unit length first.

        Raises
        ------
        UserError
            Where shapes disagree, or no row is left.
        """
        if per_class is not None:
            per_class = whole_number("per_class", per_class)
        seed, normalize = whole_number("seed", seed, least=0, most=2**63 - 1), switch("normalize", normalize)
        features, logits = numbers("reference features", features, 2), numbers("reference logits", logits, 2)
        labels = whole_numbers("reference labels", labels)
        if not len(features) == len(logits) == len(labels):
            raise UserError(
                "a reference is features (n, D), logits (n, C) and labels (n,);"
                f" got {features.shape}, {logits.shape} and {labels.shape}"
            )
        sums = ReferenceAccumulator(logits.shape[1], features.shape[1], per_class or 0, seed, normalize=normalize)
        sums.update(features, logits, labels)
        if not sums.n:
            raise UserError("a reference needs at least one finite row with a label")
        if per_class is None:
            good = (labels >= 0) & np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1)
            # all rows are good as a rule: then float32 arrays are the bank themselves, not copies of them
            kept = slice(None) if good.all() else np.flatnonzero(good)
            bank = (
                features[kept].astype(np.float32, copy=False),
                logits[kept].astype(np.float32, copy=False),
                labels[kept].astype(np.int32, copy=False),
            )
            if normalize:
                bank = (unit_rows(bank[0]), *bank[1:])
        else:
            bank = sums.bank()
        return Reference(
            **{name: getattr(sums, name) for name in SUMS},
            n=sums.n,
            max_logit_sum=sums.max_logit_sum,
            logsumexp_sum=sums.logsumexp_sum,
            bank_features=bank[0],
            bank_logits=bank[1],
            bank_labels=bank[2],
            whole=per_class is None,
            unit_features=normalize,
        )

    @staticmethod
    def from_store(store: Any) -> Reference:
        """Return the reference that a sealed reference store holds."""
        options = store.record.get("reference", {})
        return Reference(
            **{name: getattr(store, name) for name in SUMS},
            n=store.n,
            max_logit_sum=store.max_logit_sum,
            logsumexp_sum=store.logsumexp_sum,
            bank_features=store.bank_features,
            bank_logits=store.decoded_bank_logits(),
            bank_labels=store.bank_labels,
            whole=len(store.bank_labels) == store.n,
            unit_features=bool(options.get("normalize_features", store.model.head_kind == "zero-shot")),
            source=store.dataset.id,
            unit_feature_sum=store.unit_feature_sum,
            unit_second_moment=store.unit_second_moment,
        )

    @staticmethod
    def of(reference: Any) -> Reference:
        """Return a reference from one, a store, or ``(features, logits, labels)``."""
        if isinstance(reference, Reference):
            return reference
        if isinstance(reference, (tuple, list)) and len(reference) == 3:
            return Reference.from_arrays(*reference)
        if isinstance(reference, (tuple, list, np.ndarray)):
            got = f"got {len(reference)} arrays" if not isinstance(reference, np.ndarray) else "got one array"
            raise UserError(f"a reference is a store or (features, logits, labels) of the training set; {got}")
        return Reference.from_store(reference)

    def of_unit_length(self) -> Reference:
        """Return the same training set with features scaled to unit length.

        Raises
        ------
        UserError
            Where only sums of features at their own length are left: they cannot be scaled afterwards.
        """
        if self.unit_features:
            return self
        if not self.whole:
            raise UserError(
                f"the reference {self.source} holds sums of features at their own length, but the head scales"
                " features to unit length: extract the reference again with normalised features"
            )
        return self._rescaled

    def with_unit_sums(self) -> Reference:
        """Return a reference whose class sums and second moment are of features at unit length, and nothing else is.

        Raises
        ------
        UserError
            Where only sums of features at their own length are there.
        """
        if self.unit_features:
            return self
        if self.unit_feature_sum is not None and self.unit_second_moment is not None:
            return self._with_unit_sums
        if not self.whole:
            raise UserError(
                f"the reference {self.source} holds no sums of features at unit length: 'extract --arrays unit'"
                " stores them"
            )
        return self._rescaled

    @cached_property
    def _with_unit_sums(self) -> Reference:
        assert self.unit_feature_sum is not None
        assert self.unit_second_moment is not None
        return replace(self, feature_sum=self.unit_feature_sum, second_moment=self.unit_second_moment)

    @cached_property
    def _rescaled(self) -> Reference:
        return Reference.from_arrays(self.bank_features, self.bank_logits, self.bank_labels, normalize=True)

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_count)

    @property
    def width(self) -> int:
        """D."""
        return int(self.feature_sum.shape[1])

    @cached_property
    def mean(self) -> Float64:
        """Mean of all features, (D,)."""
        return np.asarray(self.feature_sum.sum(axis=0) / self.n)

    @cached_property
    def mean32(self) -> NDArray[np.float32]:
        """The mean in float32, one array for all detectors, so that rows are centred once."""
        return self.mean.astype(np.float32)

    @cached_property
    def seen(self) -> NDArray[np.intp]:
        """Classes that have rows."""
        return np.flatnonzero(self.class_count)

    @cached_property
    def class_means(self) -> Float64:
        """Means of the classes in ``seen``, (len(seen), D)."""
        return np.asarray(self.feature_sum[self.seen] / self.class_count[self.seen, None])

    @cached_property
    def total_covariance(self) -> Float64:
        """Covariance of all features around their mean, divided by n, (D, D)."""
        return np.asarray(self.second_moment / self.n - np.outer(self.mean, self.mean))

    @cached_property
    def within_covariance(self) -> Float64:
        """Covariance around the class means, pooled, divided by n, (D, D)."""
        scaled = self.feature_sum[self.seen] / np.sqrt(self.class_count[self.seen, None])
        return np.asarray((self.second_moment - scaled.T @ scaled) / self.n)

    @property
    def noise(self) -> float:
        """What rounding may leave of an eigenvalue that should be 0: the covariances are differences of sums."""
        return 64 * float(np.finfo(np.float64).eps) * float(np.trace(self.second_moment)) / self.n

    @cached_property
    def bank_weight(self) -> Float64:
        """Weights that make means over the class-balanced bank estimate means over the training set, (m,), sum 1."""
        in_bank = np.bincount(self.bank_labels, minlength=self.n_classes)
        weight = self.class_count[self.bank_labels] / in_bank[self.bank_labels]
        return np.asarray(weight / weight.sum())

    @cached_property
    def bank_unit(self) -> NDArray[np.float32]:
        """Bank features at unit length, (m, D) float32."""
        return unit_rows(self.bank_features)

    @cached_property
    def unit_bank(self) -> Bank:
        """These rows as a bank, one for all detectors that compare rows with them."""
        return Bank.of(self.bank_unit)


def unit_rows(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Scale rows to unit length; a row of zeros stays zero. Float32, blockwise."""
    result = np.empty(values.shape, np.float32)
    for start in range(0, len(values), 8192):
        rows = values[start : start + 8192].astype(np.float64)
        norm = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        result[start : start + 8192] = rows / np.where(norm > 0, norm, 1.0)
    return result
