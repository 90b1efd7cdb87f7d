"""What a backend must do: write named arrays and one header, give them back, and notice changed bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StoreFiles(ABC):
    """Writes a store that nobody else can see yet.

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
        """Create an array; returns the rows that one ``write`` should bring (all but the last time)."""

    @abstractmethod
    def write(self, name: str, start: int, block: NDArray[Any]) -> None:
        """Write rows from ``start`` on, in order, whole shards at a time."""

    @abstractmethod
    def seal(self, header: Mapping[str, Any]) -> None:
        """Replace the header by the sealed one, as the last thing, and see that all of it reaches the
        disk.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of every handle; safe to call twice."""


class StoreReader(ABC):
    """Reads a published store.

    Parameters
    ----------
    path
        Of the store.
    title
        What the store is called in an error; the path when None.
    """

    def __init__(self, path: Path, title: str | None = None) -> None:
        self.path = path
        self.title = title or str(path)

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """Return the verified header; raises as ``cache_schema.seal.check_header`` does.

        Reads one small file or the end of one file, and no array.
        """

    @abstractmethod
    def signature(self) -> tuple[int, ...]:
        """Return what changes when the store is replaced (size, time and inode of the file the header is
        in).
        """

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` of an array; CorruptStoreError where the codec finds a changed
        byte.
        """

    @abstractmethod
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array that is really there."""

    @abstractmethod
    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk: changed, missing and surplus ones, each named."""

    @abstractmethod
    def n_bytes(self) -> int:
        """Return the size on disk."""
