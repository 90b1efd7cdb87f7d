"""Accumulate the statistics of a training set for a reference store in one pass over its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.centred import encode
from cache_schema.reading.kinds.references import ReferenceArrays
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

FLOAT16_MAX = 65504.0
SUMS = (
    "class_count",
    "feature_sum",
    "correct_count",
    "correct_feature_sum",
    "predicted_count",
    "softmax_sum",
    "correct_logit_sum",
    "second_moment",
)
UNIT_SUMS = ("unit_feature_sum", "unit_second_moment")
SCALARS = ("n", "skipped", "max_logit_sum", "logsumexp_sum")
_ROWS = 512
_NEVER = np.uint64(2**64 - 1)


class ReferenceAccumulator:
    """Sums over a training set and a class-balanced, seeded bank of its rows; nothing else per image.

    Parameters
    ----------
    n_classes
        C, the width of the logits; labels are indices below it.
    width
        D, the width of the features.
    per_class
        Rows of each class in the bank; 0 for none.
    seed
        Key of the hash that chooses the rows of the bank.
    normalize
        Scale each row of features to unit length first (heads of zero-shot models act on such features).
    unit
        Give the keys of the bank's rows too, and, without ``normalize``, the sums of features at unit length.

    Notes
    -----
    The bank keeps, of each class, the ``per_class`` rows whose keyed hash is smallest. Hashed is the image's id where
    ids are given, else the row's own bytes and label; so the bank is the same for any batch size, order or sharding
    (given the same bytes), and ``merge`` of two halves keeps exactly the rows of the whole. All sums are float64.

    Examples
    --------
    >>> import numpy as np
    >>> sums = ReferenceAccumulator(n_classes=2, width=3, per_class=1)
    >>> sums.update(np.eye(3, dtype="f4"), np.array([[2, 0], [0, 2], [1, 0]], dtype="f4"), np.array([0, 1, 1]))
    >>> sums.class_count, sums.correct_count, sums.predicted_count
    (array([1, 2]), array([1, 1]), array([2, 1]))
    """

    def __init__(
        self,
        n_classes: int,
        width: int,
        per_class: int = 50,
        seed: int = 0,
        *,
        normalize: bool = False,
        unit: bool = False,
    ) -> None:
        if n_classes < 1 or width < 1 or per_class < 0:
            raise UserError(
                f"a reference needs n_classes >= 1, width >= 1, per_class >= 0; got {n_classes}, {width}, {per_class}"
            )
        self.n_classes, self.width, self.per_class, self.seed = n_classes, width, per_class, seed
        self.normalize, self.unit = bool(normalize), bool(unit)
        c, d = n_classes, width
        self.class_count = np.zeros(c, np.int64)
        self.correct_count = np.zeros(c, np.int64)
        self.predicted_count = np.zeros(c, np.int64)
        self.feature_sum = np.zeros((c, d))
        self.correct_feature_sum = np.zeros((c, d))
        self.softmax_sum = np.zeros((c, c))
        self.correct_logit_sum = np.zeros((c, c))
        self.second_moment = np.zeros((d, d))
        scaled = self.unit and not self.normalize
        self.unit_feature_sum = np.zeros((c, d)) if scaled else None
        self.unit_second_moment = np.zeros((d, d)) if scaled else None
        self.n = 0
        self.skipped = 0
        self.max_logit_sum = 0.0
        self.logsumexp_sum = 0.0
        self._limit = np.full(c, _NEVER, np.uint64)
        self._kept: list[tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        self._waiting = 0

    def update(
        self,
        features: NDArray[np.floating[Any]],
        logits: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        features : ndarray of shape (b, D)
            Penultimate features, as the model returns them.
        logits : ndarray of shape (b, C)
            Logits (or log-probabilities).
        labels : ndarray of shape (b,)
            Class indices. Rows with a negative label, or with a value that is not finite, are skipped and counted.
        ids
            Image ids; with them, rounding differences between devices do not change the bank.

        Raises
        ------
        UserError
            Shapes disagree, or a label is not a class.
        """
        features, logits = np.asarray(features), np.asarray(logits)
        labels = np.asarray(labels)
        rows = len(labels)
        if features.shape != (rows, self.width) or logits.shape != (rows, self.n_classes):
            raise UserError(
                f"a reference of {self.n_classes} classes and width {self.width} got features of shape"
                f" {features.shape} and logits of shape {logits.shape} with {rows} labels"
            )
        if rows and int(labels.max()) >= self.n_classes:
            raise UserError(f"label {int(labels.max())} is not a class: the logits have {self.n_classes}")
        if ids is not None and len(ids) != rows:
            raise UserError(f"{len(ids)} ids for {counted(rows, 'row')}")
        for start in range(0, rows, _ROWS):
            part = slice(start, start + _ROWS)
            self._add(
                features[part].astype(np.float32, copy=False),
                logits[part].astype(np.float32, copy=False),
                labels[part],
                None if ids is None else ids[part],
            )

    def _add(
        self,
        features: NDArray[np.float32],
        logits: NDArray[np.float32],
        labels: NDArray[np.integer[Any]],
        ids: Sequence[str] | None,
    ) -> None:
        good = (labels >= 0) & np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1)
        if not good.all():
            self.skipped += int((~good).sum())
            kept = np.flatnonzero(good)
            features, logits, labels = features[kept], logits[kept], labels[kept]
            ids = None if ids is None else [ids[int(i)] for i in kept]
        if not len(labels):
            return
        if self.normalize:
            features = _unit(features.astype(np.float64)).astype(np.float32)
        f, z = features.astype(np.float64), logits.astype(np.float64)
        top = z.max(axis=1)
        predicted = z.argmax(axis=1)
        softmax = np.exp(z - top[:, None])
        total = softmax.sum(axis=1)
        softmax /= total[:, None]
        right = predicted == labels
        self.n += len(labels)
        self.max_logit_sum += float(top.sum())
        self.logsumexp_sum += float((top + np.log(total)).sum())
        self.second_moment += f.T @ f
        if self.unit_feature_sum is not None and self.unit_second_moment is not None:
            u = _unit(f)
            self.unit_second_moment += u.T @ u
            _add_by_class(None, self.unit_feature_sum, labels, u)
        _add_by_class(self.class_count, self.feature_sum, labels, f)
        _add_by_class(self.correct_count, self.correct_feature_sum, labels[right], f[right])
        _add_by_class(None, self.correct_logit_sum, labels[right], z[right])
        _add_by_class(self.predicted_count, self.softmax_sum, predicted, softmax)
        self._offer(features, logits, labels.astype(np.int32), ids)

    def _offer(
        self,
        features: NDArray[np.float32],
        logits: NDArray[np.float32],
        labels: NDArray[np.int32],
        ids: Sequence[str] | None,
    ) -> None:
        if not self.per_class:
            return
        key = self.seed.to_bytes(8, "little", signed=True)
        if ids is not None:
            content = [name.encode("utf-8", "surrogatepass") for name in ids]
        else:
            content = [
                row.tobytes() + label.tobytes()
                for row, label in zip(np.ascontiguousarray(features), labels, strict=True)
            ]
        digests = b"".join(hashlib.blake2b(text, digest_size=8, key=key).digest() for text in content)
        keys = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
        chosen = np.flatnonzero(keys <= self._limit[labels])
        if len(chosen):
            self._kept.append((keys[chosen], labels[chosen], features[chosen], logits[chosen]))
            self._waiting += len(chosen)
            if self._waiting > max(4096, self.per_class * self.n_classes // 4):
                self._prune()

    def _prune(self) -> None:
        """Keep the smallest keys of each class, ordered by class and key."""
        self._waiting = 0
        if not self._kept:
            return
        keys, labels, features, logits = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        order = np.lexsort((keys, labels))
        sorted_labels = labels[order]
        first = np.searchsorted(sorted_labels, sorted_labels, side="left")
        keep = order[np.arange(len(order)) - first < self.per_class]
        self._kept = [(keys[keep], labels[keep], features[keep], logits[keep])]
        counts = np.bincount(labels[keep], minlength=self.n_classes)
        largest = np.zeros(self.n_classes, np.uint64)
        np.maximum.at(largest, labels[keep], keys[keep])
        self._limit = np.where(counts >= self.per_class, largest, _NEVER)

    def merge(self, other: ReferenceAccumulator) -> Self:
        """Add what another accumulator saw (another shard of the same training set); returns self.

        Raises
        ------
        UserError
            The two have different options.
        """
        for name in ("n_classes", "width", "per_class", "seed", "normalize", "unit"):
            if getattr(self, name) != getattr(other, name):
                raise UserError(
                    f"references of {name} {getattr(self, name)} and {getattr(other, name)} cannot be merged"
                )
        for name in SUMS + SCALARS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in UNIT_SUMS:
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self._kept += other._kept
        self._prune()
        return self

    def bank(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Return the bank's features, logits and labels, ordered by class and key."""
        _, labels, features, logits = self._bank()
        return features, logits, labels

    def _bank(self) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        self._prune()
        if self._kept:
            return self._kept[0]
        features, logits = np.zeros((0, self.width), np.float32), np.zeros((0, self.n_classes), np.float32)
        return np.zeros(0, np.uint64), np.zeros(0, np.int32), features, logits

    def arrays(self) -> ReferenceArrays:
        """Return the content of a reference store, as ``cache_schema.write_reference`` takes it.

        Returns
        -------
        ReferenceArrays
            Bank features are float16, or float32 where one exceeds float16's range; bank logits are centred on the
            row's maximum, as in a prediction store.
        """
        keys, labels, features, logits = self._bank()
        small = not len(features) or float(np.abs(features).max()) <= FLOAT16_MAX
        centred = encode(logits)
        more: dict[str, Any] = {name: getattr(self, name) for name in (*SUMS, *UNIT_SUMS)}
        if self.unit:
            # Less half of their range, so that the order of signed numbers is that of the hashes.
            more["bank_keys"] = (keys ^ np.uint64(1 << 63)).view(np.int64)
            more |= {"bank_per_class": self.per_class, "bank_seed": self.seed}
            more |= {"unit_features": self.normalize, "skipped": self.skipped}
        return ReferenceArrays(
            **more,
            bank_features=features.astype(np.float16) if small else features,
            bank_logits=centred.logits,
            bank_logit_center=centred.centers,
            bank_labels=labels,
            n=self.n,
            max_logit_sum=self.max_logit_sum,
            logsumexp_sum=self.logsumexp_sum,
        )

    def options(self) -> Mapping[str, Any]:
        """Return the options to record beside the arrays."""
        return {
            "per_class": self.per_class,
            "seed": self.seed,
            "normalize_features": self.normalize,
            "skipped": self.skipped,
        }


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to unit length; a row of zeros stays zero."""
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _add_by_class(
    counts: NDArray[np.int64] | None,
    sums: NDArray[np.float64],
    classes: NDArray[np.integer[Any]],
    rows: NDArray[np.float64],
) -> None:
    """Add rows to the sums of their classes (one reduction per class, no scatter)."""
    if not len(classes):
        return
    order = np.argsort(classes, kind="stable")
    present, first = np.unique(classes[order], return_index=True)
    sums[present] += np.add.reduceat(rows[order], first, axis=0)
    if counts is not None:
        counts[present] += np.diff(np.append(first, len(classes)))
