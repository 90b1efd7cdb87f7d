"""Reads the arrays of an ``.npz`` block by block: nothing is unpickled, and no array need fit in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError, nearest


class NpzFile:
    """An open ``.npz``.

    Parameters
    ----------
    path
        Of the file.

    Attributes
    ----------
    names
        Of its arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise UserError(f"no file {path}") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is no .npz file: {error}") from error
        self.names = [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype, from its header."""
        with self._open(name) as file:
            shape, _, dtype = self._header(name, file)
        return shape, dtype

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        with self._open(name) as file:
            try:
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
            except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                raise self._damaged(name, error) from error

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time; one in Fortran order is read whole."""
        with self._open(name) as file:
            shape, fortran, dtype = self._header(name, file)
            if fortran:
                whole = self.read(name)
                yield from (whole[start : start + rows] for start in range(0, len(whole), rows))
                return
            row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            for start in range(0, shape[0], rows):
                b = min(rows, shape[0] - start)
                try:
                    raw = file.read(b * row_bytes)
                except (OSError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
                    raise self._damaged(name, error) from error
                if len(raw) != b * row_bytes:
                    raise self._damaged(name, "it ends too early")
                yield np.frombuffer(raw, dtype).reshape(b, *shape[1:])

    def _open(self, name: str) -> Any:
        if name not in self.names:
            raise UserError(
                f"{self.path} holds no {name!r}{nearest(name, self.names)}; it has {self.listed()}"
            )
        return self._zip.open(f"{name}.npy")

    def _header(self, name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(file)
            reads = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = reads[min(version[0], 2)](file)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged(name, error) from error
        if dtype.hasobject:
            raise UserError(
                f"{self.path}: {name!r} holds Python objects, which are never loaded; save plain arrays"
            )
        return shape, bool(fortran), dtype

    def _damaged(self, name: str, error: object) -> UserError:
        return UserError(f"{self.path}: {name!r} cannot be read: {error}")

    def listed(self) -> str:
        """Return the names of the arrays in words."""
        return ", ".join(self.names) or "nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
