"""The interface of a backend: write named arrays and a header, read them, detect changed bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.briefs import Brief, HeaderBrief


class StoreFiles(ABC):
    """Writes a staged store, which no reader can see yet.

    Parameters
    ----------
    path
        Of the staged file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def begin(self, header: Mapping[str, Any]) -> None:
        """Create the store with a header that has no seal."""

    @abstractmethod
    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Create an array; return the number of rows that each ``write`` but the last should have."""

    @abstractmethod
    def write(self, name: str, start: int, block: NDArray[Any]) -> None:
        """Write rows from ``start`` on, in order, whole shards at a time."""

    @abstractmethod
    def seal(self, header: Mapping[str, Any]) -> None:
        """Write the sealed header last, and sync everything to the disk."""

    @abstractmethod
    def close(self) -> None:
        """Close all handles; can be called twice."""


class StoreReader(ABC):
    """Reads a published store.

    Parameters
    ----------
    path
        Of the store.
    title
        Name of the store in errors; the path when None.
    """

    def __init__(self, path: Path, title: str | None = None) -> None:
        self._path = path
        self._title = title or str(path)

    @property
    def path(self) -> Path:
        """The path of the store."""
        return self._path

    @property
    def title(self) -> str:
        """The name of the store in errors."""
        return self._title

    def brief(self) -> Brief:
        """Return the facts of the header that listings need."""
        return HeaderBrief(self.header())

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """Return the verified header; raises as ``cache_schema.format.seal.check_header`` does.

        Reads one small file or the end of a file, and no array.
        """

    @abstractmethod
    def check(self) -> None:
        """Check the store's structure against its seal and the schema, before anything is decoded.

        Shapes, types, codecs, lengths of chunks and names of files; no links. CorruptStoreError if it does not fit.
        """

    @abstractmethod
    def is_checked_by_header(self) -> bool:
        """Return whether ``check`` reads nothing but the file that the header is in."""

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` of an array; CorruptStoreError if a checksum does not match."""

    @abstractmethod
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array that exists on disk."""

    @abstractmethod
    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk, one line per changed, missing or surplus file."""

    @abstractmethod
    def n_bytes(self) -> int:
        """Return the size on disk."""
