"""Write prediction stores from logits and features, block by block or whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.format.centred import encode, kept_classes
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import ROW_NUMBERS, checked_ids, checked_labels, default_identity, row_numbers
from cache_schema.format.structure import LOGITS_KINDS
from cache_schema.reading.open_stores import open_published
from cache_schema.reading.store import PredictionStore
from cache_schema.writing.builder import RowStream, StoreBuilder
from cache_schema.writing.columns import add_columns
from cache_schema.writing.part_rows import PartRows
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

METADATA_DTYPES = ("int64", "float64", "bool")
FEATURES_DTYPES = ("float16", "float32")
_BLOCK = 8192


class StoreWriter:
    """Writes one prediction store in row order. Use as a context manager.

    Readers see nothing until ``close``, which the context manager calls; after an exception it removes the staged
    files instead.

    Parameters
    ----------
    cache_path
        The cache's folder; created if needed.
    model, dataset
        The cards. Rows are centred over the dataset's ``class_mask`` / ``class_map`` members.
    n_images
        Rows of the store, at least 1.
    n_classes
        C of the logits; None to store none.
    feature_width
        D of the features; None to store none.
    image_ids
        n different names, in row order.
    labels
        n integers, index in the label space (super-classes if the card has a ``class_map``), -1 for none;
        None for all -1.
    metadata
        Per-image columns by name: text, integers, floats or booleans.
    logits_kind
        ``logits`` or ``log_probabilities``. Recorded, never guessed.
    features_dtype
        ``float16``, or ``float32`` for values beyond float16.
    parts
        Further arrays that the store holds (SPEC.md, section 5.1): the name of each part with its details.
    backend
        ``zarr`` or ``hdf5``.
    record
        Versions, command, device, speed, ``class_space``, ``prompt_set``, ``head_identity`` ...
        ``writer.record`` can be extended until ``close``.
    identity
        From :func:`cache_schema.prediction_identity`; computed from the cards when None.
    overwrite
        Replace a published store of the same identity.

    Raises
    ------
    UserError
        SPEC.md does not allow the input; the message names the row or column.
    StoreExistsError
        The store exists already.
    """

    def __init__(
        self,
        cache_path: Path | str,
        *,
        model: ModelCard,
        dataset: DatasetCard,
        n_images: int,
        n_classes: int | None,
        feature_width: int | None = None,
        image_ids: Sequence[str] | NDArray[Any],
        labels: ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
        logits_kind: str = "logits",
        features_dtype: str = "float16",
        parts: Mapping[str, Mapping[str, Any]] | None = None,
        backend: str = "zarr",
        record: Mapping[str, Any] | None = None,
        identity: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self._what = f"{model.id} on {dataset.id}"
        self.n_images, self.n_classes, self.feature_width = n_images, n_classes, feature_width
        self._refuse_settings(logits_kind, features_dtype)
        self._ids = checked_ids(image_ids, n_images, dataset.id)
        self._labels = checked_labels(labels, n_images, dataset, n_classes)
        self._members = kept_classes(dataset.class_mask, dataset.class_map)
        if self._members is not None and n_classes is not None and self._members.max(initial=-1) >= n_classes:
            raise UserError(
                f"{self._what}: the dataset keeps class {self._members.max()}, there are {n_classes} logits"
            )
        self._valid = np.zeros(n_images, dtype=bool)
        self._centers = np.empty(n_images if n_classes is not None else 0, dtype=np.float32)
        self._rows = 0
        self._builder = StoreBuilder(
            cache_path,
            "predictions",
            model=model,
            dataset=dataset,
            name=dataset.id,
            identity=identity or default_identity(model, dataset, logits_kind, features_dtype, record or {}),
            backend=backend,
            record=record,
            overwrite=overwrite,
        )
        self.record = self._builder.record
        self._logits: RowStream | None = None
        self._features: RowStream | None = None
        try:
            if n_classes is not None:
                self._logits = self._builder.stream("logits", (n_images, n_classes), np.float16)
            if feature_width is not None:
                self._features = self._builder.stream("features", (n_images, feature_width), features_dtype)
            columns = add_columns(self._builder, "metadata.", metadata or {}, n_images, METADATA_DTYPES)
            self._builder.details = {"logits_kind": logits_kind, "metadata": columns}
            self._parts = PartRows(self._builder, parts or {}, n_images, features_dtype, self._what)
        except BaseException:
            self._builder.abandon()
            raise

    def _refuse_settings(self, logits_kind: str, features_dtype: str) -> None:
        if self.n_images < 1:
            raise UserError(f"{self._what}: the dataset has no images, so there is nothing to store")
        if self.n_classes is None and self.feature_width is None:
            raise UserError(f"{self._what}: give logits, features or both; n_classes and feature_width are both None")
        for name, width in (("n_classes", self.n_classes), ("feature_width", self.feature_width)):
            if width is not None and width < 1:
                raise UserError(f"{self._what}: {name} is {width}, it must be at least 1")
        if logits_kind not in LOGITS_KINDS:
            raise UserError(
                f"logits_kind {logits_kind!r} is none of {', '.join(LOGITS_KINDS)};"
                " store probabilities as log_probabilities, their logarithm"
            )
        if features_dtype not in FEATURES_DTYPES:
            raise UserError(f"features_dtype {features_dtype!r} is none of {', '.join(FEATURES_DTYPES)}")

    def append(
        self,
        logits: NDArray[Any] | None = None,
        features: NDArray[Any] | None = None,
        valid: NDArray[np.bool_] | None = None,
        parts: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add the next rows.

        Parameters
        ----------
        logits : ndarray of shape (b, C), optional
            As the model returns them, not centred. Required if the store holds logits.
        features : ndarray of shape (b, D), optional
            As the model returns them. Required if the store holds features.
        valid : ndarray of bool of shape (b,), optional
            False for images that could not be read; their rows become NaN. None marks rows with a NaN as invalid
            and all others as valid. If given, a NaN in a valid row is an error.
        parts
            Rows of every array of the store's ``parts``, by name.
        """
        rows = {len(block) for block in (logits, features, valid) if block is not None}
        if len(rows) != 1:
            raise UserError(f"{self._what}: logits, features and valid have different numbers of rows")
        (b,) = rows
        self._expect("logits", logits, self.n_classes)
        self._expect("features", features, self.feature_width)
        if self._rows + b > self.n_images:
            raise UserError(f"{self._what}: {self._rows + b} rows were given, {self.n_images} were expected")
        start = self._rows
        keep = self._kept_rows(logits, features, valid, b)
        if self._logits is not None and logits is not None:
            block = np.asarray(logits, dtype=np.float32)
            if not keep.all():
                block = block.copy()
                block[~keep] = np.nan
            coded = encode(block, self._members, first_row=start)
            self._logits.push(coded.logits)
            self._centers[start : start + b] = coded.centers
        if self._features is not None and features is not None:
            self._features.push(self._coded_features(features, keep, start))
        self._parts.push(parts or {}, keep, self._ids, start)
        self._valid[start : start + b] = keep
        self._rows += b

    def _expect(self, name: str, block: NDArray[Any] | None, width: int | None) -> None:
        if (block is None) != (width is None):
            state = "holds none" if width is None else "needs them in every append"
            raise UserError(f"{self._what}: {name}: the store {state}")
        if block is not None and (block.ndim != 2 or block.shape[1] != width or block.dtype.kind != "f"):
            raise UserError(f"{self._what}: {name} are {block.dtype} {block.shape}, not floats of (rows, {width})")

    def _kept_rows(
        self,
        logits: NDArray[Any] | None,
        features: NDArray[Any] | None,
        valid: NDArray[np.bool_] | None,
        b: int,
    ) -> NDArray[np.bool_]:
        nan = np.zeros(b, dtype=bool)
        for block in (logits, features):
            if block is not None:
                nan |= np.isnan(block).any(axis=1)
        if valid is None:
            return ~nan
        keep = np.asarray(valid)
        if keep.dtype != np.bool_:
            raise UserError(f"{self._what}: valid is {keep.dtype}, not bool")
        if (nan & keep).any():
            row = self._rows + int(np.flatnonzero(nan & keep)[0])
            raise UserError(f"{self._what}: row {row} ({self._ids[row]}) is marked valid but holds NaN")
        return keep

    def _coded_features(self, features: NDArray[Any], keep: NDArray[np.bool_], start: int) -> NDArray[Any]:
        stream = self._features
        assert stream is not None
        with np.errstate(over="ignore", under="ignore"):
            coded = features.astype(stream.dtype)
        coded[~keep] = np.nan
        burst = np.isinf(coded).any(axis=1)
        if burst.any():
            i = int(np.flatnonzero(burst)[0])
            row = f"{self._what}: row {start + i} ({self._ids[start + i]})"
            if np.isinf(features[i]).any():
                raise UserError(f"{row} holds an infinite feature; mark the row invalid or fix the model")
            raise UserError(
                f"{row} holds a feature of {np.abs(features[i]).max():.6g}, too large for {stream.dtype};"
                ' give `features_dtype="float32"`'
            )
        return coded

    def close(self) -> PredictionStore:
        """Check, seal and publish; return the store."""
        try:
            if self._rows != self.n_images:
                raise UserError(f"{self._what}: {self._rows} rows were given, {self.n_images} were expected")
            if self.n_classes is not None:
                self._builder.add("logit_center", self._centers)
            self._builder.add("labels", self._labels)
            self._builder.add("valid", self._valid)
            self._builder.add_text("image_id", self._ids)
            self._builder.details["n_valid"] = int(self._valid.sum())
            store = open_published(self._builder.publish(self.n_images))
        except BaseException:
            self.abort()
            raise
        assert isinstance(store, PredictionStore)
        self.store = store
        return store

    def abort(self) -> None:
        """Remove the staged files."""
        self._builder.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_store(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    logits: NDArray[Any] | None = None,
    features: NDArray[Any] | None = None,
    labels: ArrayLike | None = None,
    image_ids: Sequence[str] | NDArray[Any] | None = None,
    valid: NDArray[np.bool_] | None = None,
    metadata: Mapping[str, Any] | None = None,
    backend: str = "zarr",
    logits_kind: str = "logits",
    features_dtype: str = "float16",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
    parts: Mapping[str, Mapping[str, Any]] | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> PredictionStore:
    """Write a prediction store from arrays in memory (or memory-mapped arrays, which are read block by block).

    Parameters
    ----------
    cache_path, model, dataset, labels, metadata, backend, logits_kind, features_dtype, record, identity,
    overwrite, parts
        See :class:`StoreWriter`.
    logits : ndarray of shape (n, C), optional
        As the model returns them, or log-probabilities with ``logits_kind="log_probabilities"``.
    features : ndarray of shape (n, D), optional
        Penultimate features. Logits, features or both.
    image_ids
        n names. None gives ``"0"``, ``"1"`` ... and marks them in the record: such rows are not paired across models.
    valid : ndarray of bool of shape (n,), optional
        See :meth:`StoreWriter.append`.
    arrays
        Every array of ``parts``, by name, n rows each.

    Returns
    -------
    PredictionStore
        The published store.
    """
    given = logits if logits is not None else features
    if given is None:
        raise UserError(f"{model.id} on {dataset.id}: give logits, features or both")
    n = len(given)
    for name, array in (("logits", logits), ("features", features)):
        if array is not None and array.ndim != 2:
            raise UserError(f"{model.id} on {dataset.id}: {name} have shape {array.shape}, not (images, width)")
    if logits is not None and features is not None and len(features) != n:
        raise UserError(f"{model.id} on {dataset.id}: {counted(n, 'row')} of logits, {len(features)} of features")
    writer = StoreWriter(
        cache_path,
        model=model,
        dataset=dataset,
        n_images=n,
        n_classes=None if logits is None else logits.shape[1],
        feature_width=None if features is None else features.shape[1],
        image_ids=row_numbers(n) if image_ids is None else image_ids,
        labels=labels,
        metadata=metadata,
        logits_kind=logits_kind,
        features_dtype=features_dtype,
        backend=backend,
        record={**(record or {}), "image_ids": ROW_NUMBERS} if image_ids is None else record,
        identity=identity,
        overwrite=overwrite,
        parts=parts,
    )
    with writer:
        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            further = {name: values[rows] for name, values in (arrays or {}).items()}
            some, others, keep = (None if array is None else array[rows] for array in (logits, features, valid))
            writer.append(some, others, keep, further)
    return writer.store
