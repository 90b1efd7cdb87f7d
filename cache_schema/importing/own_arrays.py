"""Read a user's arrays by this project's names: from an ``.npz``, ``.npy`` files, or a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.importing.column_names import OTHER_NAMES, renamed
from cache_schema.importing.limits import plain
from cache_schema.importing.npz import LISTED, NpzFile, mapped_npy
from cache_schema.importing.wide_tables import read_wide_table
from closerlook_common.errors import UserError, nearest


class ArrayFile(Protocol):
    """Access to arrays by name, whole or block by block."""

    path: Path
    names: list[str]

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        ...

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        ...

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array."""
        ...


class Arrays:
    """Arrays in memory, or memory-mapped."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path, self._arrays, self.names = path, dict(arrays), list(arrays)

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        return self._arrays[name].shape, self._arrays[name].dtype

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        return np.asarray(self._arrays[name])

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time."""
        array = self._arrays[name]
        return (np.asarray(array[start : start + rows]) for start in range(0, len(array), rows))


class OwnArrays:
    """The arrays of one or several files under this project's names. Use as a context manager.

    Parameters
    ----------
    path
        An ``.npz``; an ``.npy`` of what ``kind`` says; or a CSV or Parquet file with one column per class (``logit_0``,
        ``logit_1`` ...), and optionally ``label``, ``image_id`` and ``feature_0`` ....
    kind
        What an ``.npy`` holds (logits when None), and columns that are called 0, 1, 2 ... (must then be given).
    beside
        Name -> ``.npy`` file of further arrays.
    report
        Called with one line for everything that is left out.

    Raises
    ------
    UserError
        A file is missing, or is not of the type that its ending says.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str | None = None,
        beside: Mapping[str, Path] | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.path = path
        self._npz: NpzFile | None = None
        sources: list[ArrayFile] = []
        suffix = path.suffix.lower()
        if suffix == ".npz":
            self._npz = NpzFile(path)
            sources.append(self._npz)
        elif suffix == ".npy":
            sources.append(Arrays(path, {kind or "logits": mapped_npy(path)}))
        else:
            sources.append(Arrays(path, read_wide_table(path, kind=kind, report=report)))
        sources += [Arrays(file, {name: mapped_npy(file)}) for name, file in (beside or {}).items()]
        self._of: dict[str, tuple[ArrayFile, str]] = {}
        for source in sources:
            known = renamed(source.names, OTHER_NAMES, str(source.path))
            for name in source.names:
                standard = known.get(name, name)
                if standard in self._of:
                    raise UserError(f"{standard} are given twice: in {self._of[standard][0].path} and {source.path}")
                self._of[standard] = (source, name)
        self.names = list(self._of)

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype."""
        source, own = self._found(name)
        return source.shape_and_dtype(own)

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        source, own = self._found(name)
        return source.read(own)

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time."""
        source, own = self._found(name)
        return source.blocks(own, rows)

    def listed(self) -> str:
        """Return the names of the arrays as text."""
        more = f" ... ({len(self.names):,} in all)" if len(self.names) > LISTED else ""
        return ", ".join(map(plain, self.names[:LISTED])) + more or "nothing"

    def _found(self, name: str) -> tuple[ArrayFile, str]:
        if name not in self._of:
            raise UserError(f"{self.path} holds no {name!r}{nearest(name, self.names)}; it has {self.listed()}")
        return self._of[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._npz is not None:
            self._npz.__exit__(kind, error, trace)
