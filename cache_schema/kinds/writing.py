"""What the writers of these kinds share: the part of a card that an identity holds, arrays of finite numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.errors import UserError
from cache_schema.records import DatasetCard, ModelCard


def model_fields(model: ModelCard) -> dict[str, Any]:
    """Return what an identity holds of the model."""
    names = ("id", "library", "name", "tag", "weights_digest", "preprocessing")
    return {name: getattr(model, name) for name in names}


def dataset_fields(dataset: DatasetCard) -> dict[str, Any]:
    """Return what an identity holds of the dataset."""
    return {
        name: getattr(dataset, name) for name in ("id", "digest", "class_space", "class_mask", "class_map")
    }


def finite_floats(name: str, values: ArrayLike, dtype: Any, ndim: int) -> NDArray[Any]:
    """Return an array of so many axes, every number of it finite."""
    array = np.asarray(values, dtype=dtype)
    if array.ndim != ndim:
        raise UserError(f"{name} has {array.ndim} axes, not {ndim}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinity")
    return array
