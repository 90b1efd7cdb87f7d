"""Read a cache at an address (s3, gs, http ...): headers first, then the files with the rows that are read.

Files are kept on this machine under the digest of the root or tail that seals them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.backends.base import StoreReader
from cache_schema.backends.hdf5 import GUESS, HEX, parse_tail
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.format.dataset_facts import FOLDER as RECORDS
from cache_schema.format.dataset_facts import LARGEST_RECORD, Recorded, collect, is_record_name, too_large
from cache_schema.format.naming import backend_of
from cache_schema.format.schema import KINDS
from cache_schema.reading.places.addresses import Address, is_plain_name
from cache_schema.reading.places.base import Place, Signature
from cache_schema.reading.places.files import RemoteFiles
from cache_schema.reading.places.hdf5 import RemoteHdf5Reader, fetch_file, is_sealed, sealed_digest
from cache_schema.reading.places.mirror import Mirror, mirror_bytes, mirror_folder
from cache_schema.reading.places.wire import Wire
from closerlook_common.console.waiting import waiting
from closerlook_common.errors import CacheError, CorruptStoreError, UnsealedStoreError, UserError
from closerlook_common.user_cache import part_of

INDEX = "index.json"
"""A list of the stores, for servers that cannot list folders; ``push`` updates it."""

HDF5_BEGIN = b"\x89"
WRONG_FILES = 2
"""How often to fetch a wrong HDF5 file before the store counts as damaged."""
_VALIDATORS = ("ETag", "Content-MD5", "Digest", "Last-Modified")


class RemotePlace(Place):
    """A cache at an address. Its stores are listed once, when first needed.

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
        self._records: list[str] | None = None
        self._recorded: Recorded | None = None
        self._of_model: dict[str, list[str]] = {}
        self._readers: dict[str, StoreReader | CacheError] = {}
        self._sends_parts: bool | None = None if self.wire.address.is_web else True
        self._probe = threading.Lock()

    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths."""
        if self._names is None and model and not self.wire.address.is_web:
            if model not in self._of_model:
                with waiting(f"listing {self.title}"):
                    self._of_model[model] = self._walked([model])
            return self._of_model[model]
        if self._names is None:
            with waiting(f"listing {self.title}"):
                self._names = self._listed()
        return [name for name in self._names if not model or name.startswith(f"{model}/")]

    def _listed(self) -> list[str]:
        denied = ""
        if self.wire.address.is_web:
            try:
                raw = self.wire.cat(INDEX)
                if raw is not None:
                    self._records = _index_records(raw, self.title)
                    return sorted(_index_names(raw, self.title))
            except CacheError as error:  # some servers return an error if there is no file
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

    def recorded(self) -> Recorded:
        """Return the records of the datasets' roles, read once."""
        if self._recorded is None:
            if self.wire.address.is_web:
                self.names()  # the index lists the records too
            names = self.record_names() if self._records is None else self._records
            raws = dict(zip(names, self.wire.each(self._record, names), strict=True))

            def read(name: str) -> tuple[bytes, str]:
                raw, title = raws[name], f"{self.title}/{RECORDS}/{name}"
                if isinstance(raw, CacheError):
                    raise raw
                return raw, title

            self._recorded = collect(names, read)
        return self._recorded

    def record_names(self) -> list[str]:
        """Return the names of the records at the address, from a listing."""
        if self.wire.address.is_web and RECORDS not in self.wire.entries(""):
            return []  # some servers return an error if there is no folder
        return sorted(name for name in self.wire.entries(RECORDS) if is_record_name(name))

    def _record(self, name: str) -> bytes | CacheError:
        """Return a record's content, or the error, so that the others are read all the same."""
        try:
            raw = self.wire.cat(f"{RECORDS}/{name}", LARGEST_RECORD + 1)
        except CacheError as error:
            return error
        if raw is None:
            return CorruptStoreError(f"{self.title}/{RECORDS}/{name} is listed and missing")
        return raw if len(raw) <= LARGEST_RECORD else too_large(f"{self.title}/{RECORDS}/{name}")

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
        """Fetch the headers of stores that were not read yet, in parallel."""
        new = [name for name in names if name not in self._readers]
        self._readers |= dict(zip(new, self.wire.each(self._opened, new), strict=True))

    def _opened(self, name: str) -> StoreReader | CacheError:
        """Return a reader, or the error, which is raised only when the store is used."""
        try:
            try:
                return self._verified(name)
            except CorruptStoreError:
                return self._verified(name)  # perhaps a damaged transfer: try again
        except CacheError as error:
            return error

    def _verified(self, name: str) -> StoreReader:
        reader = self.open(name)
        reader.header()
        return reader

    def signatures(self, names: Sequence[str]) -> list[Signature | None]:
        """Return constants: a remote cache is read as it was when it was opened."""
        return [(0, 0, 0, 0)] * len(names)

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
            raise UnsealedStoreError(f"{title} has no {ROOT}: it is not a store, or its writer was stopped")
        folder = self._kept(name, hashlib.sha256(raw).hexdigest())
        return ZarrReader(folder, RemoteFiles(self.wire, name, folder, raw, self.mirror.write))

    def _kept(self, name: str, digest: str) -> Path:
        return self.folder.joinpath(digest[:16], *name.split("/"))

    def _hdf5(self, name: str) -> StoreReader:
        title = f"{self.title}/{name}"
        info = self.wire.info(name)
        if info is None:
            raise UnsealedStoreError(f"{title} is not there")
        size = announced_size(info, title)
        raw = self._end(name, size) if info.get("partial", True) else None
        if raw is None:
            # Without the file's end, only what the server says of the file can show that a copy is still current.
            validators = [str(info.get(key, "")) for key in _VALIDATORS]
            path = self._kept(name, hashlib.sha256(json.dumps([name, size, *validators]).encode()).hexdigest())
            if not any(validators):
                path.unlink(missing_ok=True)
            return RemoteHdf5Reader(path, title, size, None, lambda: self._fetch(name, path, size, None))
        tail = parse_tail(lambda start, stop: self._bytes(name, start, stop, raw, size), size, title)
        path = self._kept(name, tail.file_digest)
        return RemoteHdf5Reader(path, title, size, tail, lambda: self._fetch(name, path, size, tail.file_digest))

    def _end(self, name: str, size: int) -> bytes | None:
        """Return the last bytes of a file; None if the server sends only whole files."""
        with self._probe:  # one file shows whether the server sends parts
            if self._sends_parts is None:
                raw = self._tail(name, size)
                self._sends_parts = raw is not None
                return raw
        return self._tail(name, size) if self._sends_parts else None

    def _tail(self, name: str, size: int) -> bytes | None:
        # Never ask for the whole file: servers that send no parts would look the same.
        start = max(1, size - GUESS)
        raw = self.wire.part(name, start, size)
        if raw is None:
            raise UnsealedStoreError(f"{self.title}/{name} is not there")
        if len(raw) > size - start:
            return None
        return HDF5_BEGIN + raw if start == 1 else raw

    def _bytes(self, name: str, start: int, stop: int, end: bytes, size: int) -> bytes:
        """Return bytes of a file, from ``end`` (its last bytes) where they are among these."""
        begin = size - len(end)
        if start >= begin:
            return end[start - begin : stop - begin]
        raw = self.wire.part(name, start, stop)
        if raw is None or len(raw) != stop - start:
            raise replaced(f"{self.title}/{name}")
        return raw

    def _fetch(self, name: str, path: Path, size: int, sealed: str | None) -> None:
        """Fetch a whole HDF5 file to ``path``; ``sealed`` is the digest of its bytes if that is known."""
        title = f"{self.title}/{name}"
        self.mirror.check_room(size, title)
        self.mirror.make_room(size)
        part = part_of(path)
        problem: CacheError
        try:
            self.mirror.make()
            for _ in range(WRONG_FILES):
                fetch_file(self.wire, name, part, size, in_parts=sealed is not None)
                if is_sealed(part) and sealed in (None, sealed_digest(part)):
                    part.replace(path)
                    return
                part.unlink()
            problem = CorruptStoreError(
                f"{title}: its bytes are not those that were sealed; write the store there again"
            )
        except CacheError as error:
            problem = error
        except OSError as error:
            raise self.mirror.refused(error) from error
        finally:
            part.unlink(missing_ok=True)
        raise replaced(title) if self._is_replaced(name, size, sealed) else problem

    def _is_replaced(self, name: str, size: int, sealed: str | None) -> bool:
        """Return whether the server now has another file of that name."""
        try:
            info = self.wire.info(name)
            if info is None or info.get("size") != size:
                return True
            return sealed is not None and self.wire.part(name, size - HEX, size) != sealed.encode()
        except CacheError:
            return False


def replaced(title: str) -> CorruptStoreError:
    """Return the error for a store that was replaced while it was read."""
    return CorruptStoreError(f"{title} was replaced while it was read; run the same command again")


def announced_size(info: Mapping[str, Any], title: str) -> int:
    """Return the size of a file as the server reports it; CacheError if it reports none."""
    size = info.get("size")
    if size is None:
        raise CacheError(f"{title}: the server does not report the size of this file")
    return int(size)


_INDEXES = "'python -m cache_schema push CACHE file:///FOLDER/OF/THE/SERVER' writes"


def _is_store(name: str) -> bool:
    return is_plain_name(name) and backend_of(name) is not None


def _index_names(raw: bytes, title: str) -> list[str]:
    """Return the names in an index; refuse names that lead out of the cache."""
    try:
        names = [str(name) for name in json.loads(raw)["stores"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{title}/{INDEX} is not an index of a cache") from error
    for name in names:
        parts = name.split("/")
        if len(parts) not in (2, 3) or not all(map(is_plain_name, parts)) or not _is_store(parts[-1]):
            raise UserError(f"{title}/{INDEX} names {name[:100]!r}, which is not a store of a cache")
    return names


def _index_records(raw: bytes, title: str) -> list[str]:
    """Return the names of the datasets' records in an index; older indexes have none."""
    try:
        names = [str(name) for name in json.loads(raw).get("datasets", [])]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{title}/{INDEX} is not an index of a cache") from error
    for name in names:
        if not is_record_name(name):
            raise UserError(f"{title}/{INDEX} names {name[:100]!r}, which is not a record of a dataset")
    return names
