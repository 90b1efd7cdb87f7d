"""What must hold of a prediction store's rows: ids and labels in, checked ones out; errors name the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.errors import UserError
from cache_schema.identities import prediction_identity
from cache_schema.records import UNKNOWN, DatasetCard, ModelCard


def checked_ids(image_ids: Sequence[str] | NDArray[Any], n: int, dataset_id: str) -> list[str]:
    """Return n different, non-empty image ids; UserError names the first that is not."""
    ids = [str(item) for item in image_ids]
    if len(ids) != n:
        raise UserError(f"dataset {dataset_id}: {len(ids)} image ids for {n} images")
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise UserError(f"dataset {dataset_id}: the image id of row {row} is empty")
        if seen.setdefault(name, row) != row:
            raise UserError(
                f"dataset {dataset_id}: rows {seen[name]} and {row} have the same image id {name!r}"
            )
    return ids


def label_limit(dataset: DatasetCard, n_classes: int | None) -> int | None:
    """Return the number of labels there can be: super-classes, else classes; None where nobody knows."""
    if dataset.class_map is not None:
        return len(dataset.class_map)
    return n_classes if n_classes is not None else dataset.n_classes


def checked_labels(
    labels: ArrayLike | None, n: int, dataset: DatasetCard, n_classes: int | None
) -> NDArray[np.int32]:
    """Return n labels as int32; UserError names the first that is out of range."""
    if labels is None:
        return np.full(n, -1, dtype=np.int32)
    array = np.asarray(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise UserError(
            f"dataset {dataset.id}: labels are {array.dtype} {array.shape}, not {n} integers (-1 for none)"
        )
    limit = label_limit(dataset, n_classes)
    bad = (array < -1) | (array >= (limit if limit is not None else np.iinfo(np.int32).max))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"dataset {dataset.id}: row {row} has label {array[row]}; labels are -1 (none) to"
            f" {'2**31 - 2' if limit is None else limit - 1}"
        )
    return array.astype(np.int32)


def default_identity(
    model: ModelCard, dataset: DatasetCard, logits_kind: str, features_dtype: str, record: Mapping[str, Any]
) -> str:
    """Return the identity of a store whose writer gave none: what the cards and the record say."""
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
