"""What a place of stores is, and the plain one: names of stores and readers of them out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.base import StoreReader
from cache_schema.errors import UserError, nearest
from cache_schema.naming import backend_of, refuse_model_folder, store_folders
from cache_schema.places.addresses import meant_address


class Place(ABC):
    """Where the stores of a cache are.

    Attributes
    ----------
    title
        What the cache is called in an error; no secrets of an address are in it.
    where
        What opens it again, in another process say.
    folder
        The cache's folder; for an address, the folder on this machine that holds what was read of it.
    is_local
        Whether ``folder`` is the cache itself.
    """

    title: str
    where: str
    folder: Path
    is_local: bool

    @abstractmethod
    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths below the cache, ``/`` between parts, sorted; of one model's folder, if named."""

    @abstractmethod
    def prepare(self, names: Sequence[str]) -> None:
        """Be told which stores are asked for next, so that their headers can be fetched together."""

    @abstractmethod
    def reader(self, name: str) -> StoreReader:
        """Return a reader of one of ``names()``."""


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
                found += [
                    f"{below}/{entry.name}"
                    for entry in entries
                    if not entry.name.startswith(".") and backend_of(entry.name)
                ]
        return sorted(found)

    def prepare(self, names: Sequence[str]) -> None:
        """Do nothing: a file at hand is best read when it is needed."""

    def reader(self, name: str) -> StoreReader:
        """Return a reader of a store."""
        return reader_of(self.folder / name)


def _nearest_folder(path: Path) -> str:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return nearest(path.name, names)
