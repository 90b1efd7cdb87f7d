"""Access to the files of a store, on this machine or at an address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from cache_schema.format.plain_files import read_plain, size_inside
from cache_schema.format.schema import MAX_HEADER_BYTES
from closerlook_common.errors import CorruptStoreError
from closerlook_common.input_files import LFS_REMEDY, is_lfs_pointer


class FileSource(ABC):
    """The files of one store.

    Parameters
    ----------
    folder
        Folder of the files on this machine; remote files are fetched into it.
    title
        Name of the store in errors.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder = folder
        self.title = title

    @abstractmethod
    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a small file; None if it does not exist."""

    @abstractmethod
    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Make sure that files (name -> size, SHA-256) lie in ``folder``; CorruptStoreError if they cannot."""


class LocalFiles(FileSource):
    """Files on this machine, or on a file system that it has mounted."""

    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a file."""
        try:
            size_inside(self.folder, name, title=self.title)
            return read_plain(self.folder / name, MAX_HEADER_BYTES, title=f"{self.title}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Compare sizes with the seal."""
        for name, (size, _) in files.items():
            try:
                found = size_inside(self.folder, name, title=self.title)
            except (FileNotFoundError, NotADirectoryError):
                raise CorruptStoreError(f"{self.title}/{name} is missing; write the store again") from None
            if found != size and is_lfs_pointer(self.folder / name):
                raise CorruptStoreError(f"{self.title}/{name} {LFS_REMEDY}")
            if found != size:
                raise CorruptStoreError(f"{self.title}/{name} has {found} bytes, {size} were sealed")
