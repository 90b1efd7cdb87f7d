"""Where a reader's files are: names within a store in, bytes or files on this machine out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from cache_schema.errors import CorruptStoreError


class FileSource(ABC):
    """The files of one store.

    Parameters
    ----------
    folder
        Where they lie on this machine, or where they are put when they are needed.
    title
        What the store is called in an error.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder = folder
        self.title = title

    @abstractmethod
    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a small file, None where there is none."""

    @abstractmethod
    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """See that files (name -> size, SHA-256) lie in ``folder``; CorruptStoreError where they cannot."""

    @abstractmethod
    def are_kept(self, files: Mapping[str, tuple[int, str]]) -> bool:
        """Return whether files that were needed are there still; one that went away reads as fill values."""

    @abstractmethod
    def signature(self, name: str) -> tuple[int, ...]:
        """Return what changes when a file is replaced."""


class LocalFiles(FileSource):
    """Files on this machine, or on a file system that it has mounted."""

    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a file."""
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Compare sizes with the seal: a missing shard would read as fill values, silently."""
        for name, (size, _) in files.items():
            try:
                found = (self.folder / name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                raise CorruptStoreError(f"{self.title}/{name} is missing; write the store again") from None
            if found != size:
                raise CorruptStoreError(f"{self.title}/{name} has {found} bytes, {size} were sealed")

    def are_kept(self, files: Mapping[str, tuple[int, str]]) -> bool:
        """Return True: nobody but the user deletes them."""
        return True

    def signature(self, name: str) -> tuple[int, ...]:
        """Return size, time and inode."""
        stat = (self.folder / name).stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
