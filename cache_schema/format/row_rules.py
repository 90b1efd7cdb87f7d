"""Check the rows of a prediction store: image ids and labels; errors name the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.format.identities import prediction_identity
from cache_schema.format.records import UNKNOWN, DatasetCard, ModelCard
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


def checked_ids(image_ids: Sequence[str] | NDArray[Any], n: int, dataset_id: str) -> list[str]:
    """Return n image ids, all different and none empty; UserError names the first that is not."""
    ids = [str(item) for item in image_ids]
    if len(ids) != n:
        raise UserError(f"dataset {dataset_id}: {len(ids)} image ids for {counted(n, 'image')}")
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise UserError(f"dataset {dataset_id}: the image id of row {row} is empty")
        if seen.setdefault(name, row) != row:
            raise UserError(f"dataset {dataset_id}: rows {seen[name]} and {row} have the same image id {name!r}")
    return ids


ROW_NUMBERS = "row numbers"
"""``record["image_ids"]`` of a store without image names, whose ids number the rows."""


def row_numbers(n: int) -> list[str]:
    """Return ids for images without names: ``"0"``, ``"1"`` ..."""
    return [str(row) for row in range(n)]


def has_image_names(record: Mapping[str, Any], image_ids: Sequence[str]) -> bool:
    """Return whether ids are names of images, not row numbers.

    Parameters
    ----------
    record
        Of the store; its ``image_ids`` says which. In older stores without it, ids 0, 1, 2 ... are row numbers.
    image_ids
        The store's.
    """
    if "image_ids" in record:
        return str(record["image_ids"]) != ROW_NUMBERS
    return any(name != str(row) for row, name in enumerate(image_ids))


def label_limit(dataset: DatasetCard, n_classes: int | None) -> int | None:
    """Return the number of possible labels: super-classes, else classes; None if unknown."""
    if dataset.class_map is not None:
        return len(dataset.class_map)
    return n_classes if n_classes is not None else dataset.n_classes


def label_problem(labels: NDArray[np.integer[Any]], limit: int | None, *, first_row: int = 0) -> str:
    """Return a message on the first label that is out of range; empty if all are valid."""
    bad = (labels < -1) | (labels >= (np.iinfo(np.int32).max if limit is None else limit))
    if not bad.any():
        return ""
    row = int(np.flatnonzero(bad)[0])
    allowed = "2**31 - 2" if limit is None else limit - 1
    return f"row {first_row + row} has label {labels[row]}; labels are -1 (none) to {allowed}"


def checked_labels(labels: ArrayLike | None, n: int, dataset: DatasetCard, n_classes: int | None) -> NDArray[np.int32]:
    """Return n labels as int32; UserError names the first that is out of range."""
    if labels is None:
        return np.full(n, -1, dtype=np.int32)
    array = np.asarray(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise UserError(f"dataset {dataset.id}: labels are {array.dtype} {array.shape}, not {n} integers (-1 for none)")
    limit = label_limit(dataset, n_classes)
    if problem := label_problem(array, limit):
        raise UserError(f"dataset {dataset.id}: {problem}")
    return array.astype(np.int32)


def default_identity(
    model: ModelCard, dataset: DatasetCard, logits_kind: str, features_dtype: str, record: Mapping[str, Any]
) -> str:
    """Return the identity of a store from its cards and its record, for writers that gave none."""
    return prediction_identity(
        library=model.library,
        name=model.id if model.name == UNKNOWN else model.name,
        tag=model.tag,
        weights_digest=model.weights_digest,
        preprocessing=model.preprocessing,
        precision=str(record.get("precision", "")),
        dataset_id=dataset.id,
        dataset_digest=dataset.digest,
        class_space=str(record.get("class_space", dataset.class_space)),
        class_mask=dataset.class_mask,
        class_map=dataset.class_map,
        prompt_set_digest=str(record.get("prompt_set_digest", record.get("prompt_set", ""))),
        logits_kind=logits_kind,
        features_dtype=features_dtype,
        forward_version=int(record.get("forward_version", 0)),
    )
