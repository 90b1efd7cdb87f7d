"""Write named columns of a store (metadata, statistics) with safe array names and checked dtypes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.naming import slug
from cache_schema.format.schema import TABULAR
from cache_schema.writing.builder import StoreBuilder
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

Column = NDArray[Any] | Sequence[str]


def plain_column(name: str, values: Any, dtypes: Iterable[str]) -> NDArray[Any] | list[str]:
    """Return a column as an array of an allowed dtype, or as a list of strings.

    Parameters
    ----------
    name
        For the error.
    values
        Any sequence or array.
    dtypes
        Allowed dtypes besides text.
    """
    array = np.asarray(values)
    if array.dtype.kind in "OUST":
        listed = array.tolist()
        for i, value in enumerate(listed):
            if not isinstance(value, str):
                raise UserError(f"column {name!r}: row {i} is {value!r}, which is not text; use '' for missing values")
        return listed  # type: ignore[no-any-return]
    if array.dtype.name not in dtypes:
        for kinds, dtype in (("b", "bool"), ("iu", "int64"), ("f", "float64")):
            if array.dtype.kind in kinds and dtype in dtypes:
                if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(dtype).max:
                    break
                return array.astype(dtype)
        raise UserError(f"column {name!r} is {array.dtype}; allowed are text, {', '.join(dtypes)}")
    return array


def add_columns(
    builder: StoreBuilder, prefix: str, columns: Mapping[str, Any], n: int, dtypes: Sequence[str] = TABULAR
) -> list[dict[str, str]]:
    """Write columns and return their entries for the header's details.

    Parameters
    ----------
    builder
        The store that is being written.
    prefix
        ``metadata.`` or ``column.``.
    columns
        Name -> n values (or n rows of values).
    n
        Rows of the store.
    dtypes
        Allowed dtypes besides text.

    Returns
    -------
    list of dict
        ``name``, the ``array`` that holds it and its ``type`` (``text`` or a dtype), in the order given.
    """
    listed = []
    for name, values in columns.items():
        column = plain_column(name, values, dtypes)
        if len(column) != n:
            raise UserError(f"column {name!r} has {counted(len(column), 'row')}, the store {n}")
        array = prefix + slug(name)
        if isinstance(column, list):
            builder.add_text(array, column)
            listed.append({"name": name, "array": array, "type": "text"})
        else:
            builder.add(array, column)
            listed.append({"name": name, "array": array, "type": column.dtype.name})
    return listed
