"""Array arguments of any origin as numpy arrays: lists, numpy, torch, pandas and polars."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Return values as a plain array of booleans, integers, floats of at most 64 bits, or text.

    Parameters
    ----------
    name
        Of the argument, for the error.
    values
        Nested lists, numpy arrays, torch tensors (on any device, with or without gradient), series and frames of
        pandas and polars.

    Raises
    ------
    UserError
        For ragged lists, Python objects, complex numbers, masked entries and missing values of a nullable column.
    """
    try:
        array = _converted(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{name} is not an array of numbers: {reason}") from error
    if array.dtype.kind == "O":
        array = _of_objects(name, array)
    if array.dtype.kind not in "biufUST":
        raise UserError(f"{name} must be real numbers; its type is {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind in "iuf" and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def _converted(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise ValueError("entries are masked; leave their rows out")
        return np.asarray(values.data)
    if hasattr(values, "detach") and hasattr(values, "cpu"):  # torch, which is never imported here
        values = values.detach().cpu()
        try:
            return np.asarray(values)
        except TypeError:  # bfloat16, which numpy does not have
            return np.asarray(values.float())
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    return np.asarray(values)


def _of_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of objects as one of numbers or text where all are; nullable columns come as objects."""
    listed = array.ravel().tolist()
    for row, value in enumerate(listed):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            raise UserError(f"{name}: entry {row} is missing; leave its row out")
        if not isinstance(value, (bool, int, float, str, np.number, np.bool_)):
            raise UserError(f"{name} must be real numbers; entry {row} is a {type(value).__name__}")
    kinds = {isinstance(value, str) for value in listed}
    if len(kinds) > 1:
        raise UserError(f"{name} mixes text and numbers")
    found = np.array(listed)
    if found.dtype.kind == "O":
        raise UserError(f"{name} holds whole numbers that 64 bits cannot hold")
    return found.reshape(array.shape)


def numbers(name: str, values: Any, n_dimensions: int) -> NDArray[Any]:
    """Return a float array of so many dimensions, with rows; float16 to float64 keep their width.

    NaN and infinity are let through: this is for scores and logits whose bad rows the caller handles.
    """
    array = as_array(name, values)
    if array.ndim != n_dimensions:
        raise UserError(f"{name} must have {n_dimensions} dimension(s); its shape is {array.shape}")
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise UserError(f"{name} must be real numbers; its type is {array.dtype}")
    return array
