"""Helpers of the writers of all kinds: the fields of a card in an identity, checked arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError


def model_fields(model: ModelCard) -> dict[str, Any]:
    """Return the fields of a model card that are part of an identity."""
    names = ("id", "library", "name", "tag", "weights_digest", "preprocessing")
    return {name: getattr(model, name) for name in names}


def dataset_fields(dataset: DatasetCard) -> dict[str, Any]:
    """Return the fields of a dataset card that are part of an identity."""
    return {name: getattr(dataset, name) for name in ("id", "digest", "class_space", "class_mask", "class_map")}


def finite_floats(name: str, values: ArrayLike, dtype: Any, ndim: int) -> NDArray[Any]:
    """Return an array after checking its number of axes and that all values are finite."""
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise UserError(f"{name} is {given.dtype}, not real numbers")
    if given.ndim != ndim:
        raise UserError(f"{name} has {given.ndim} axes, not {ndim}; its shape is {given.shape}")
    with np.errstate(over="ignore"):
        array = given.astype(dtype, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(int(i[0]) for i in np.nonzero(~finite))
        place = ", ".join(map(str, at))
        raise UserError(f"{name} holds NaN or infinity: [{place}] is {given[at]} ({(~finite).sum():,} in all)")
    return array
