"""The interface of a place, and the local folder: list stores and return their readers."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.base import StoreReader
from cache_schema.format.dataset_facts import Recorded, recorded_in
from cache_schema.format.naming import SUFFIXES, ZARR_HEADER, refuse_model_folder, store_folders
from cache_schema.reading.places.addresses import meant_address
from closerlook_common.errors import UserError, nearest

Signature = tuple[int, int, int, int]
"""Size, times of the last change of content and of status in nanoseconds, inode of the file that a header is in."""
_STORES = tuple(SUFFIXES.values())


class Place(ABC):
    """Location of a cache's stores.

    Attributes
    ----------
    title
        Name of the cache in errors, without secrets of an address.
    where
        Path or address that opens the place again, in another process say.
    folder
        The cache's folder; for an address, the folder on this machine with the files that were fetched.
    is_local
        Whether ``folder`` is the cache itself.
    """

    title: str
    where: str
    folder: Path
    is_local: bool

    @abstractmethod
    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths below the cache, ``/`` between parts, sorted; only those of one model if given."""

    @abstractmethod
    def prepare(self, names: Sequence[str]) -> None:
        """Fetch the headers of stores that are read next, all together."""

    @abstractmethod
    def signatures(self, names: Sequence[str]) -> list[Signature | None]:
        """Return for each store what changes when it is replaced, None where there is no file with a header."""

    @abstractmethod
    def reader(self, name: str) -> StoreReader:
        """Return a reader of one of ``names()``."""

    @abstractmethod
    def recorded(self) -> Recorded:
        """Return the records of the datasets' roles."""


class LocalPlace(Place):
    """A folder.

    Parameters
    ----------
    path
        Of the cache.
    """

    is_local = True

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(f"no cache at {path}{meant_address(path) or _nearest_folder(path)}")
        refuse_model_folder(path)
        self.folder = path
        self.title = str(path)
        self.where = str(path.absolute())

    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths."""
        found = []
        for folder in store_folders(self.folder, model):
            below = folder.relative_to(self.folder).as_posix()
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
            found += [f"{below}/{name}" for name in names if name.endswith(_STORES) and not name.startswith(".")]
        return sorted(found)

    def prepare(self, names: Sequence[str]) -> None:
        """No-op: local headers are read when needed."""

    def signatures(self, names: Sequence[str]) -> list[Signature | None]:
        """Return the states of the files that the headers are in.

        The time of the last change of status is in it: unlike the time of the content, nobody can set it back.
        """
        folder, found = os.fspath(self.folder), list[Signature | None]()
        for name in names:
            try:
                # Like the readers: the store itself may be a link, a file in it may not.
                at = f"{folder}/{name}"
                status = os.stat(at) if name.endswith(SUFFIXES["hdf5"]) else os.lstat(f"{at}/{ZARR_HEADER}")  # noqa: PTH116
            except OSError:
                found.append(None)
                continue
            plain = stat.S_ISREG(status.st_mode)
            found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if plain else None)
        return found

    def reader(self, name: str) -> StoreReader:
        """Return a reader of a store."""
        return reader_of(self.folder / name)

    def recorded(self) -> Recorded:
        """Return the records of the datasets' roles, as they are now."""
        return recorded_in(self.folder)


def _nearest_folder(path: Path) -> str:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return nearest(path.name, names)
