"""Reads a cache at an address (s3, gs, http ...): headers first, then the files that rows lie in, kept on
this machine under the digest of what vouches for them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs

from cache_schema.backends.base import StoreReader
from cache_schema.backends.hdf5 import GUESS, Hdf5Reader, read_tail
from cache_schema.backends.sources import FileSource
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.errors import CacheError, CorruptStoreError, UnsealedStoreError, UserError
from cache_schema.naming import backend_of
from cache_schema.place import Place
from cache_schema.schema import KINDS

INDEX = "index.json"
"""A list of the stores, for servers that list no folders; ``push`` keeps it."""

HEADERS_AT_ONCE = 16
FILES_AT_ONCE = 4
BLOCK_SIZE = 1 << 20
"""Bytes of an HDF5 file that are fetched and kept at a time."""

MIRROR_VARIABLE = "CLOSERLOOK_MIRROR"


def mirror_folder() -> Path:
    """Return where files of remote caches are kept: ``$CLOSERLOOK_MIRROR``, else below the user's cache
    folder.
    """
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "closerlook" / "mirror"


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    part.write_bytes(raw)
    part.replace(path)


class RemoteFiles(FileSource):
    """Files of a Zarr store at an address; those that were needed lie in ``folder``.

    Parameters
    ----------
    fs
        An fsspec file system.
    root
        Path of the store in it.
    folder
        See :class:`FileSource`.
    title
        The store's address.
    known
        Files whose bytes are at hand.
    """

    def __init__(self, fs: Any, root: str, folder: Path, title: str, known: Mapping[str, bytes]) -> None:
        super().__init__(folder, title)
        self._fs, self._root, self._known = fs, root, known

    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a small file."""
        if name in self._known:
            return self._known[name]
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            raw = cat(self._fs, f"{self._root}/{name}")
        if raw is not None:
            write_whole(self.folder / name, raw)
        return raw

    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Fetch what is not here yet, and compare it with the seal."""
        missing = [item for item in files.items() if not (self.folder / item[0]).exists()]
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(self._fetch_checked, missing))

    def _fetch_checked(self, item: tuple[str, tuple[int, str]]) -> None:
        name, (size, digest) = item
        raw = cat(self._fs, f"{self._root}/{name}")
        if raw is None:
            raise CorruptStoreError(f"{self.title}/{name} is missing")
        if len(raw) != size or hashlib.sha256(raw).hexdigest() != digest:
            raise CorruptStoreError(f"{self.title}/{name}: its bytes are not those that were sealed")
        write_whole(self.folder / name, raw)

    def signature(self, name: str) -> tuple[int, ...]:
        """Return a constant: a remote cache is read as it was when it was opened."""
        return (len(self._known.get(name, b"")),)


def cat(fs: Any, path: str) -> bytes | None:
    """Return a remote file's bytes, None where there is none."""
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # every protocol has errors of its own
        raise CacheError(f"{path} cannot be fetched: {type(error).__name__}: {error}") from error


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

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        self.title = address.rstrip("/")
        try:
            self.fs, root = url_to_fs(self.title, **options)
        except (ValueError, ImportError) as error:
            raise UserError(f"{address} cannot be opened: {error}") from error
        self.root = root.rstrip("/")
        self.folder = mirror_folder() / hashlib.sha256(self.title.encode()).hexdigest()[:16]
        self._names: list[str] | None = None
        self._readers: dict[str, StoreReader | CacheError] = {}

    def names(self, model: str = "") -> list[str]:
        """Return the stores' paths."""
        if model:
            return [name for name in self.names() if name.startswith(f"{model}/")]
        if self._names is None:
            self._names = self._listed()
            if not self._names and not self.fs.exists(self.root):
                raise UserError(f"no cache at {self.title}")
            with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
                self._readers = dict(zip(self._names, pool.map(self._opened, self._names), strict=True))
        return self._names

    def _listed(self) -> list[str]:
        try:
            if "http" in self.title.partition("://")[0]:
                raw = cat(self.fs, f"{self.root}/{INDEX}")
                if raw is not None:
                    return sorted(_index_names(raw, self.title))
            return sorted(self.walk())
        except Exception as error:  # every protocol has errors of its own
            raise UserError(f"{self.title} cannot be read: {type(error).__name__}: {error}") from error

    def walk(self) -> Iterator[str]:
        """Yield the stores' paths from listings of the folders."""
        below = {spec.folder for spec in KINDS.values() if spec.folder}
        for model in self._entries(""):
            if model.startswith(".") or backend_of(model) is not None:
                continue
            for entry in self._entries(model):
                if entry in below:
                    yield from (
                        f"{model}/{entry}/{name}" for name in self._entries(f"{model}/{entry}") if _is_store(name)
                    )
                elif _is_store(entry):
                    yield f"{model}/{entry}"

    def _entries(self, folder: str) -> list[str]:
        path = f"{self.root}/{folder}".rstrip("/")
        try:
            listed = self.fs.ls(f"{path}/" if "http" in self.title[:5] else path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(entry).rstrip("/").rpartition("/")[2] for entry in listed if str(entry).rstrip("/") != path}
        return sorted(name for name in names if name and "?" not in name)

    def _opened(self, name: str) -> StoreReader | CacheError:
        """Return a reader, or why there is none: told when the store is asked for, and the others go on."""
        try:
            reader = self.open(name)
            reader.header()
        except CacheError as error:
            return error
        except Exception as error:  # noqa: BLE001  every protocol has errors of its own
            return CacheError(f"{self.title}/{name} cannot be read: {type(error).__name__}: {error}")
        return reader

    def open(self, name: str) -> StoreReader:
        """Return a fresh reader of a store; its header is fetched."""
        title = f"{self.title}/{name}"
        if backend_of(name) == "hdf5":
            return self._hdf5(name, title)
        raw = cat(self.fs, f"{self.root}/{name}/{ROOT}")
        if raw is None:
            raise UnsealedStoreError(f"{title} has no {ROOT}: it is no store, or its writer was stopped")
        folder = self._kept(name, hashlib.sha256(raw).hexdigest())
        return ZarrReader(folder, RemoteFiles(self.fs, f"{self.root}/{name}", folder, title, {ROOT: raw}))

    def _kept(self, name: str, digest: str) -> Path:
        model, _, rest = name.partition("/")
        return self.folder / digest[:16] / model / rest

    def _hdf5(self, name: str, title: str) -> StoreReader:
        path = f"{self.root}/{name}"
        info = self.fs.info(path)
        if not info.get("partial", True) or info.get("size") is None:
            return self._whole_hdf5(name, path, title)  # a server that sends no parts of files
        size = int(info["size"])
        last = self.fs.cat_file(path, start=max(0, size - GUESS), end=size)
        tail_digest = hashlib.sha256(last).hexdigest()
        folder = self._kept(name, tail_digest)
        blocks = fsspec.filesystem(
            "blockcache", fs=self.fs, cache_storage=str(folder.with_name(f"{folder.name}.blocks")), check_files=False
        )

        def opener() -> BinaryIO:
            file = blocks.open(path, "rb", block_size=BLOCK_SIZE)
            assert isinstance(file, io.IOBase)
            return file  # type: ignore[return-value]

        return Hdf5Reader(folder, opener, title)

    def _whole_hdf5(self, name: str, path: str, title: str) -> StoreReader:
        raw = cat(self.fs, path)
        if raw is None:
            raise UnsealedStoreError(f"{title} is not there")
        kept = self._kept(name, read_tail(io.BytesIO(raw), title).file_digest)
        if not kept.exists():
            write_whole(kept, raw)
        return Hdf5Reader(kept, None, title)

    def reader(self, name: str) -> StoreReader:
        """Return a reader of a store."""
        self.names()
        found = self._readers[name]
        if isinstance(found, CacheError):
            raise found
        return found


def _is_store(name: str) -> bool:
    return not name.startswith(".") and backend_of(name) is not None


def _index_names(raw: bytes, title: str) -> list[str]:
    """Return the names in an index, none of which may lead out of the cache."""
    try:
        names = json.loads(raw)["stores"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{title}/{INDEX} is no index of a cache") from error
    for name in names:
        parts = str(name).split("/")
        if len(parts) not in (2, 3) or any(part in ("", ".", "..") for part in parts) or not _is_store(parts[-1]):
            raise UserError(f"{title}/{INDEX} names {name!r}, which is no store of a cache")
    return [str(name) for name in names]
