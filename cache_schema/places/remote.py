"""Reads a cache at an address (s3, gs, http ...): headers first, then the files that rows lie in, kept on
this machine under the digest of what vouches for them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.backends.base import StoreReader
from cache_schema.backends.hdf5 import GUESS, Hdf5Reader
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.errors import CacheError, CorruptStoreError, UnsealedStoreError, UserError
from cache_schema.naming import backend_of
from cache_schema.places.addresses import Address, is_plain_name
from cache_schema.places.base import Place
from cache_schema.places.blocks import RemoteBlocks, RemoteHdf5Reader
from cache_schema.places.files import RemoteFiles
from cache_schema.places.mirror import Mirror, mirror_bytes, mirror_folder, touch
from cache_schema.places.wire import Wire
from cache_schema.schema import KINDS
from cache_schema.user_cache import part_of

INDEX = "index.json"
"""A list of the stores, for servers that list no folders; ``push`` keeps it."""

HDF5_BEGIN = b"\x89"
_VALIDATORS = ("ETag", "Content-MD5", "Digest", "Last-Modified")


class RemotePlace(Place):
    """A cache at an address. Its stores are listed once, when first asked for.

    Parameters
    ----------
    address
        Such as ``s3://bucket/cache``.
    options
        For fsspec: credentials, endpoint, ``anon`` ...
    """

    is_local = False

    def __init__(self, address: str, options: Mapping[str, Any] | None = None) -> None:
        self.where = address
        self.wire = Wire(Address(address), options or {})
        self.title = self.wire.title
        self.mirror = Mirror(mirror_folder(), mirror_bytes())
        self.folder = self.mirror.folder / hashlib.sha256(self.title.encode()).hexdigest()[:16]
        self._names: list[str] | None = None
        self._of_model: dict[str, list[str]] = {}
        self._readers: dict[str, StoreReader | CacheError] = {}
        self._sends_parts: bool | None = None if self.wire.address.is_web else True
        self._probe = threading.Lock()

    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths."""
        if self._names is None and model and not self.wire.address.is_web:
            if model not in self._of_model:
                self._of_model[model] = self._walked([model])
            return self._of_model[model]
        if self._names is None:
            self._names = self._listed()
        return [name for name in self._names if not model or name.startswith(f"{model}/")]

    def _listed(self) -> list[str]:
        denied = ""
        if self.wire.address.is_web:
            try:
                raw = self.wire.cat(INDEX)
                if raw is not None:
                    return sorted(_index_names(raw, self.title))
            except CacheError as error:  # some servers answer so where there is no file
                denied = str(error)
        try:
            found = self.walk()
        except CacheError as error:
            if not self.wire.address.is_web or denied:
                raise UserError(denied or str(error)) from None
            raise UserError(f"{error}, and there is no {INDEX}, which {_INDEXES}") from None
        if found:
            return found
        if self.wire.there("", lambda: self.wire.fs.exists(self.wire.at("")) or None) is None:
            raise UserError(f"no cache at {self.title}: nothing is there")
        if self.wire.address.is_web:
            raise UserError(f"no cache at {self.title}: it lists no stores and has no {INDEX}, which {_INDEXES}")
        return []

    def walk(self) -> list[str]:
        """Return the stores' paths from listings of the folders."""
        folders = [
            name
            for name, is_folder in self.wire.entries("").items()
            if is_folder and is_plain_name(name) and backend_of(name) is None
        ]
        return self._walked(folders)

    def _walked(self, folders: Sequence[str]) -> list[str]:
        """Return the stores' paths in some models' folders and in those of the kinds below them."""
        below = {spec.folder for spec in KINDS.values() if spec.folder}
        own = dict(zip(folders, self.wire.each(self.wire.entries, folders), strict=True))
        inner = [f"{model}/{name}" for model, entries in own.items() for name in entries if name in below]
        own |= dict(zip(inner, self.wire.each(self.wire.entries, inner), strict=True))
        return sorted(f"{folder}/{name}" for folder, entries in own.items() for name in entries if _is_store(name))

    def prepare(self, names: Sequence[str]) -> None:
        """Fetch the headers of stores that are not here yet, together."""
        new = [name for name in names if name not in self._readers]
        self._readers |= dict(zip(new, self.wire.each(self._opened, new), strict=True))

    def _opened(self, name: str) -> StoreReader | CacheError:
        """Return a reader, or why there is none: told when the store is asked for, and the others go on."""
        try:
            try:
                return self._verified(name)
            except CorruptStoreError:
                return self._verified(name)  # the wire's fault, perhaps
        except CacheError as error:
            return error

    def _verified(self, name: str) -> StoreReader:
        reader = self.open(name)
        reader.header()
        return reader

    def reader(self, name: str) -> StoreReader:
        """Return a reader of a store."""
        self.prepare([name])
        found = self._readers[name]
        if isinstance(found, CacheError):
            raise found
        return found

    def open(self, name: str) -> StoreReader:
        """Return a fresh reader of a store."""
        if backend_of(name) == "hdf5":
            return self._hdf5(name)
        title = f"{self.title}/{name}"
        raw = self.wire.cat(f"{name}/{ROOT}")
        if raw is None:
            raise UnsealedStoreError(f"{title} has no {ROOT}: it is no store, or its writer was stopped")
        folder = self._kept(name, hashlib.sha256(raw).hexdigest())
        return ZarrReader(folder, RemoteFiles(self.wire, name, folder, raw, self.mirror.write))

    def _kept(self, name: str, digest: str) -> Path:
        return self.folder.joinpath(digest[:16], *name.split("/"))

    def _hdf5(self, name: str) -> StoreReader:
        info = self.wire.info(name)
        if info is None:
            raise UnsealedStoreError(f"{self.title}/{name} is not there")
        size = info.get("size")
        if size is None or not info.get("partial", True) or self._sends_parts is False:
            return self._whole_hdf5(name, info)
        tail = None
        with self._probe:  # a server that sends whole files is learnt from one of them, not from all
            if self._sends_parts is None:
                tail = self._tail(name, int(size))
                self._sends_parts = tail is not None
        if not self._sends_parts:
            return self._whole_hdf5(name, info)
        tail = tail or self._tail(name, int(size))
        if tail is None:
            return self._whole_hdf5(name, info)
        folder = self._kept(name, hashlib.sha256(tail).hexdigest())
        blocks = folder.with_name(f"{folder.name}.blocks")
        return RemoteHdf5Reader(folder, RemoteBlocks(self.wire, name, int(size), tail, blocks, self.mirror))

    def _tail(self, name: str, size: int) -> bytes | None:
        """Return the last bytes of a file, None where the server sends whole files only."""
        # Never all of the file: else a server that sends no parts could not be told from one that does.
        start = max(1, size - GUESS)
        raw = self.wire.part(name, start, size)
        if raw is None:
            raise UnsealedStoreError(f"{self.title}/{name} is not there")
        if len(raw) > size - start:
            return None
        return HDF5_BEGIN + raw if start == 1 else raw

    def _whole_hdf5(self, name: str, info: Mapping[str, Any]) -> StoreReader:
        """Return a reader of a file that is fetched as a whole, once as long as the server tells the same of it."""
        title = f"{self.title}/{name}"
        told = json.dumps([name, info.get("size"), *(str(info.get(key, "")) for key in _VALIDATORS)])
        kept = self._kept(name, hashlib.sha256(told.encode()).hexdigest())
        known = any(info.get(key) for key in _VALIDATORS)
        if not (known and touch(kept)):
            self.mirror.make_room(int(info.get("size") or 0))
            part = part_of(kept)
            try:
                self.wire.download(name, part)
                problems = Hdf5Reader(part, None, title).byte_problems()
                if problems:
                    raise CorruptStoreError(f"{title}: {problems[0]}")
                part.replace(kept)
            except OSError as error:
                raise self.mirror.refused(error) from error
            finally:
                part.unlink(missing_ok=True)
        return Hdf5Reader(kept, None, title)


_INDEXES = "'python -m cache_schema push CACHE file:///FOLDER/OF/THE/SERVER' writes"


def _is_store(name: str) -> bool:
    return is_plain_name(name) and backend_of(name) is not None


def _index_names(raw: bytes, title: str) -> list[str]:
    """Return the names in an index, none of which may lead out of the cache."""
    try:
        names = [str(name) for name in json.loads(raw)["stores"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{title}/{INDEX} is no index of a cache") from error
    for name in names:
        parts = name.split("/")
        if len(parts) not in (2, 3) or not all(map(is_plain_name, parts)) or not _is_store(parts[-1]):
            raise UserError(f"{title}/{INDEX} names {name!r}, which is no store of a cache")
    return names
