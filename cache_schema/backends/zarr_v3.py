"""Zarr format 3: one folder per store, sharded arrays, and a root ``zarr.json`` with the digest of every file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.base import StoreFiles, StoreReader
from cache_schema.backends.resting import Resting
from cache_schema.backends.sources import FileSource, LocalFiles
from cache_schema.backends.syncing import sync_file, sync_folder
from cache_schema.backends.zarr_columns import (
    Columns,
    columns_from,
    columns_of,
    metadata_of,
    usual_columns,
)
from cache_schema.format.header_rules import check_cost
from cache_schema.format.naming import ZARR_HEADER, is_system_file
from cache_schema.format.plain_files import size_inside
from cache_schema.format.schema import FORMAT, layout
from cache_schema.format.seal import (
    DIGEST_KEY,
    FileDigest,
    check_header,
    check_header_size,
    digest_file,
    dump_with_digest,
    misfit,
    verify_digest,
)
from cache_schema.format.strict_json import parse_json
from closerlook_common.errors import CorruptStoreError, UnsealedStoreError
from closerlook_common.input_files import LFS_REMEDY, is_lfs_pointer

ROOT = ZARR_HEADER
FILES = f"{FORMAT}_files"
"""Attribute of the root group: ``files`` maps every other file to its size and SHA-256; ``file_digest`` is
the digest of the root's own file."""

_FILE = re.compile(r"[a-z0-9_][a-z0-9._-]*/(zarr\.json|c/[0-9]+(/0){0,2})")

_LONGEST = 300
"""Longest name of a file of a store, in letters; that of an array has 200 at most."""

MAX_METADATA_BYTES = 64 << 10
"""Largest ``zarr.json`` of an array."""

SYNC_THREADS = 8
_CODEC_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, OSError, EOFError)


def root_document(header: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group metadata of a store."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {FILES: {"files": files, DIGEST_KEY: None}, FORMAT: header},
    }


class ZarrFiles(StoreFiles):
    """Writes the same files as zarr, without its threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._arrays: dict[str, Columns] = {}
        self._files: dict[str, FileDigest] = {}

    def begin(self, header: Mapping[str, Any]) -> None:
        """Create the store with a header that has no seal."""
        self.path.mkdir()
        (self.path / ROOT).write_bytes(dump_with_digest(root_document(header, {})))

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Create an array; return the number of rows in a shard."""
        cut = layout(shape, dtype.itemsize)
        metadata = metadata_of(shape, dtype, cut)
        self._keep(f"{name}/{ROOT}", metadata)
        self._arrays[name] = columns_from(shape, dtype, cut)
        return cut.shard_rows

    def write(self, name: str, start: int, block: NDArray[Any]) -> None:
        """Write rows, whole shards at a time."""
        if not block.size:
            return
        array = self._arrays[name]
        rows, rest = array.shards[0], "/0" * (array.ndim - 1)
        for first in range(0, len(block), rows):
            shard = array.shard(block[first : first + rows])
            self._keep(f"{name}/c/{(start + first) // rows}{rest}", shard)

    def _keep(self, file: str, content: bytes) -> None:
        """Write a file and remember its digest."""
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._files[file] = FileDigest(len(content), hashlib.sha256(content).hexdigest())

    def seal(self, header: Mapping[str, Any]) -> None:
        """Sync all files, then write the root with the sealed header."""
        files: list[Path] = []
        folders = [self.path]
        for path in self.path.rglob("*"):
            (folders if path.is_dir() else files).append(path)
        # In parallel, so that the file system can commit them together.
        with ThreadPoolExecutor(SYNC_THREADS) as pool:
            list(pool.map(sync_file, files))
            list(pool.map(sync_folder, folders))
        part = self.path.parent / ROOT
        raw = dump_with_digest(root_document(header, dict(sorted(self._files.items()))))
        check_header_size(len(raw), self.path)
        part.write_bytes(raw)
        sync_file(part)
        part.replace(self.path / ROOT)
        sync_folder(self.path)

    def close(self) -> None:
        """Close all handles."""
        self._arrays.clear()


class ZarrReader(StoreReader):
    """Reads the files of a store directly: see :class:`Columns`.

    Parameters
    ----------
    path
        Of the store.
    source
        Access to its files; those at ``path`` when None.
    """

    def __init__(self, path: Path, source: FileSource | None = None) -> None:
        super().__init__(path, None if source is None else source.title)
        self._source = source or LocalFiles(path, str(path))
        self._columns: dict[str, Columns] | None = None
        self._document = Resting()

    def _root(self) -> dict[str, Any]:
        document = self._document.get()
        if document is None:
            title = self._source.title
            raw = self._source.fetch(ROOT)
            if raw is None:
                raise self._without_root()
            if is_lfs_pointer(raw):
                raise CorruptStoreError(f"{title}/{ROOT} {LFS_REMEDY}")
            try:
                attributes = parse_json(raw).get("attributes", {})
                header = attributes.get(FORMAT)
            except (ValueError, AttributeError) as error:
                raise CorruptStoreError(
                    f"{title}/{ROOT} is not a store's JSON; its bytes were changed ({error})"
                ) from None
            check_header(header, title)  # first, so that a newer version is not reported as corrupt
            verify_digest(raw, f"{title}/{ROOT}")
            try:
                sizes = _listed_files(attributes.get(FILES))
                check_cost(attributes[FORMAT], len(raw) + sum(sizes))
            except ValueError as error:
                raise misfit(title, error) from None
            document = attributes
            self._document.set(document)
        return document

    def header(self) -> dict[str, Any]:
        """Return the verified header."""
        header = self._root()[FORMAT]
        assert isinstance(header, dict)
        return header

    def check(self) -> None:
        """Check that the files of the store match its arrays, and check chunks and codecs.

        Fetches nothing of a store at an address; the first read checks it if needed.
        """
        if isinstance(self._source, LocalFiles) or self.is_checked_by_header():
            self._all_columns()

    def is_checked_by_header(self) -> bool:
        """Return whether the seal shows that every array has the layout of this package."""
        listed = self._root()[FILES]["files"]
        for name, entry in self.header()["seal"]["arrays"].items():
            _, size, digest = usual_columns(tuple(entry["shape"]), entry["dtype"])
            if listed.get(f"{name}/{ROOT}") != [size, digest]:
                return False
        return True

    def _all_columns(self) -> dict[str, Columns]:
        """Return the layout of every array.

        The seal holds the digest of each array's ``zarr.json``. Arrays with the layout of this package have a known
        digest, so that these files need not be read.
        """
        if self._columns is None:
            listed, columns = self._root()[FILES]["files"], {}
            expected = []
            try:
                for name, entry in self.header()["seal"]["arrays"].items():
                    shape, file = tuple(entry["shape"]), f"{name}/{ROOT}"
                    known, size, digest = usual_columns(shape, entry["dtype"])
                    if listed.get(file) != [size, digest]:
                        known = columns_of(self._metadata(name), shape, entry["dtype"])
                    columns[name] = known
                    expected.append(file)
                    expected += known.files(name)
                for name in sorted(listed.keys() ^ expected):
                    what = "it belongs to no array" if name in listed else "it is missing from the list of files"
                    raise ValueError(f"{name[:200]}: {what}")
            except ValueError as error:
                raise misfit(self._source.title, error) from None
            self._columns = columns
        return self._columns

    def _metadata(self, name: str) -> bytes:
        """Return an array's ``zarr.json``, which must be the one that was sealed."""
        file = f"{name}/{ROOT}"
        listed = self._root()[FILES]["files"].get(file)
        if listed is None:
            raise ValueError(f"{name} has no {ROOT}")
        if listed[0] > MAX_METADATA_BYTES:
            raise ValueError(f"{file} has {listed[0]} bytes")
        raw = self._source.fetch(file)
        if raw is None:
            raise CorruptStoreError(f"{self._source.title}/{file} is missing; write the store again")
        if hashlib.sha256(raw).hexdigest() != listed[1]:
            raise CorruptStoreError(f"{self._source.title}/{file}: its bytes are not those that were sealed")
        return raw

    def files(self) -> dict[str, tuple[int, str]]:
        """Return size and SHA-256 of every file of the store except the root's ``zarr.json``, from the seal."""
        self._all_columns()  # refuses names that lead out of the store
        return self._sealed()

    def _sealed(self) -> dict[str, tuple[int, str]]:
        return {name: (size, digest) for name, (size, digest) in self._root()[FILES]["files"].items()}

    def _without_root(self) -> UnsealedStoreError:
        return UnsealedStoreError(f"{self._source.title} has no {ROOT}: it is not a store, or its writer was stopped")

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array."""
        columns = self._all_columns().get(name)
        if columns is None:
            raise CorruptStoreError(f"{self._source.title} holds no array {name}")
        start, stop = min(start, columns.shape[0]), min(stop, columns.shape[0])
        self._source.need(self._shards(columns, name, start, stop))
        folder = self._source.folder / name
        try:
            return columns.read(folder, start, stop)
        except FileNotFoundError as error:
            raise CorruptStoreError(
                f"{self._source.title}: files of {name} were deleted while they were read; run the same command again"
            ) from error
        except _CODEC_ERRORS as error:
            raise CorruptStoreError(
                f"{self._source.title}: rows {start} to {stop} of {name} cannot be decoded, bytes changed: {error}"
            ) from error

    def _shards(self, columns: Columns, name: str, start: int, stop: int) -> dict[str, tuple[int, str]]:
        """Return size and SHA-256 of the files that rows lie in."""
        listed = self._root()[FILES]["files"]
        rows = columns.shards[0]
        files = columns.files(name)[start // rows : -(-stop // rows)] if stop > start else []
        return {file: (listed[file][0], listed[file][1]) for file in files}

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array."""
        found = {}
        for name, columns in sorted(self._all_columns().items()):
            try:
                self._metadata(name)
            except ValueError as error:
                raise misfit(self._source.title, error) from None
            found[name] = (columns.shape, columns.dtype.name)
        return found

    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk."""
        listed, problems, folder = self.files(), [], self._source.folder
        there = set()
        for at, folders, names in os.walk(folder):
            below = Path(at).relative_to(folder)
            links = [name for name in folders if (Path(at) / name).is_symlink()]
            there |= {(below / name).as_posix() for name in [*links, *names] if not is_system_file(name)}
        problems += [f"{name}: not among the files that were sealed" for name in sorted(there - {ROOT, *listed})]
        for name, (size, digest) in listed.items():
            try:
                size_inside(folder, name, title=self.title)
                if tuple(digest_file(folder / name)) == (size, digest):
                    continue
                if is_lfs_pointer(folder / name):
                    problems.append(f"{name} {LFS_REMEDY}")
                else:
                    problems.append(f"{name}: its bytes are not those that were sealed")
            except (FileNotFoundError, NotADirectoryError):
                problems.append(f"{name}: missing")
            except CorruptStoreError:
                problems.append(f"{name}: is a link or not a plain file")
        return problems

    def n_bytes(self) -> int:
        """Return the size on disk."""
        return len(self._source.fetch(ROOT) or b"") + sum(size for size, _ in self._sealed().values())


@lru_cache(8192)
def _is_file(name: str) -> bool:
    return _FILE.fullmatch(name) is not None


def _listed_files(section: Any) -> list[int]:
    """Return the sizes of the files that a root lists; ValueError if it lists other things than files."""
    files = section.get("files") if isinstance(section, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{FILES} lists no files")
    sizes = []
    for name, entry in files.items():
        if len(name) > _LONGEST or not _is_file(name):
            raise ValueError(f"it lists {name[:200]!r}, which is not a file of a store")
        if (
            type(entry) is not list
            or len(entry) != 2
            or type(entry[0]) is not int
            or not 0 <= entry[0] < 1 << 48
            or type(entry[1]) is not str
            or len(entry[1]) != 64
        ):
            raise ValueError(f"{FILES} does not give size and digest of {name[:200]!r}")
        sizes.append(entry[0])
    return sizes
