"""Rows of a prediction store's further arrays, those that are stored when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.schema import ArraySpec, part_arrays
from cache_schema.writing.builder import RowStream, StoreBuilder
from closerlook_common.errors import UserError, nearest

NO_INDEX = -1
"""Whole number in a row that is not valid."""

KIND = "predictions"


class PartRows:
    """Adds rows to the arrays of some parts; the streams are opened with the first rows, which show the widths.

    Parameters
    ----------
    builder
        Of the store.
    parts
        Names of parts, each with its details.
    n_images
        Rows of the store.
    features_dtype
        Of arrays that may be float16 or float32.
    what
        Names the store in errors.

    Raises
    ------
    UserError
        There is no such part.
    """

    def __init__(
        self,
        builder: StoreBuilder,
        parts: Mapping[str, Mapping[str, Any]],
        n_images: int,
        features_dtype: str,
        what: str,
    ) -> None:
        self._builder, self._n, self._what = builder, n_images, what
        self._specs: dict[str, ArraySpec] = {}
        for part, details in parts.items():
            members = part_arrays(KIND, part)
            if not members:
                raise UserError(f"{what}: a prediction store has no arrays called {part!r}")
            self._specs |= {spec.name: spec for spec in members}
            builder.details[part] = dict(details)
        self._dtypes = {
            name: features_dtype if features_dtype in spec.dtypes else spec.dtypes[0]
            for name, spec in self._specs.items()
        }
        self._streams: dict[str, RowStream] = {}

    def push(self, rows: Mapping[str, NDArray[Any]], keep: NDArray[np.bool_], ids: Sequence[str], start: int) -> None:
        """Add the next rows.

        Parameters
        ----------
        rows
            Array name -> (b, ...) values; all arrays of the parts.
        keep
            (b,) which rows are valid; the others become NaN, or -1 in whole numbers.
        ids
            Names of all images of the store.
        start
            Number of the first of these rows.
        """
        if unknown := [name for name in rows if name not in self._specs]:
            near = nearest(unknown[0], self._specs) if self._specs else ""
            raise UserError(f"{self._what}: the store holds no array {unknown[0]!r}{near}")
        for name, spec in self._specs.items():
            if name not in rows:
                raise UserError(f"{self._what}: {name}: the store needs it in every append")
            values = np.asarray(rows[name])
            self._check_shape(spec, values, len(keep))
            coded = self._coded(name, values, keep)
            if coded.dtype.kind == "f":
                self._check_finite(name, values, coded, keep, ids, start)
            self._streams[name].push(coded)

    def _check_shape(self, spec: ArraySpec, values: NDArray[Any], b: int) -> None:
        if len(values) != b or values.ndim != len(spec.dims):
            raise UserError(f"{self._what}: {spec.name} is {values.shape}, not ({b}, {', '.join(spec.dims[1:])})")
        if spec.name not in self._streams:
            shape = (self._n, *values.shape[1:])
            self._streams[spec.name] = self._builder.stream(spec.name, shape, self._dtypes[spec.name])
        width = self._streams[spec.name].shape[1:]
        if values.shape[1:] != width:
            raise UserError(f"{self._what}: rows of {spec.name} are {values.shape[1:]}, those before were {width}")

    def _coded(self, name: str, values: NDArray[Any], keep: NDArray[np.bool_]) -> NDArray[Any]:
        dtype = np.dtype(self._dtypes[name])
        if dtype.kind == "f":
            with np.errstate(over="ignore", under="ignore"):
                coded: NDArray[Any] = values.astype(dtype)
            coded[~keep] = np.nan
            return coded
        whole = np.where(keep.reshape(-1, *[1] * (values.ndim - 1)), values, NO_INDEX)
        return whole.astype(dtype)

    def _check_finite(
        self,
        name: str,
        values: NDArray[Any],
        coded: NDArray[Any],
        keep: NDArray[np.bool_],
        ids: Sequence[str],
        start: int,
    ) -> None:
        bad = ~np.isfinite(coded.reshape(len(coded), -1)).all(axis=1) & keep
        if not bad.any():
            return
        i = int(np.flatnonzero(bad)[0])
        row = f"{self._what}: row {start + i} ({ids[start + i]})"
        if not np.isfinite(values[i]).all():
            raise UserError(f"{row} holds NaN or infinity in {name}")
        raise UserError(
            f"{row} holds {np.abs(values[i]).max():.6g} in {name}, too large for {coded.dtype};"
            ' give `features_dtype="float32"`'
        )
