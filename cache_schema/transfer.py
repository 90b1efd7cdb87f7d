"""Copies sealed stores between a cache on this machine and one at an address: whole, verified, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.hdf5 import HEX, Hdf5Reader
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.errors import CacheError, CorruptStoreError, StoreExistsError
from cache_schema.naming import backend_of
from cache_schema.place import Place
from cache_schema.remote import INDEX, RemoteFiles, RemotePlace, cat, write_whole
from cache_schema.seal import digest_file
from cache_schema.staging import Stage, sync_file, sync_folder
from cache_schema.store import Store, store_of

Chosen = Callable[[Store], bool]


def pull_store(place: RemotePlace, name: str, cache_path: Path) -> bool:
    """Copy a store from an address into a cache on this machine.

    Parameters
    ----------
    place, name
        Where it is, and one of ``place.names()``.
    cache_path
        The cache to copy into; the store keeps its name.

    Returns
    -------
    bool
        False where it is there already.

    Raises
    ------
    CorruptStoreError
        What came is not what was sealed; nothing is published.
    """
    target = cache_path / name
    if target.exists():
        return False
    with Stage(target) as stage:
        if backend_of(name) == "hdf5":
            place.fs.get_file(f"{place.root}/{name}", str(stage.path))
            reader = Hdf5Reader(stage.path)
            reader.header()
        else:
            raw = cat(place.fs, f"{place.root}/{name}/{ROOT}")
            if raw is None:
                raise CacheError(f"{place.title}/{name} has no {ROOT}")
            title = f"{place.title}/{name}"
            source = RemoteFiles(place.fs, f"{place.root}/{name}", stage.path, title, {ROOT: raw})
            files = ZarrReader(stage.path, source).files()
            source.need(files)
            write_whole(stage.path / ROOT, raw)
        problems = reader_of(stage.path).byte_problems()
        if problems:
            raise CorruptStoreError(f"{place.title}/{name}: {problems[0]}")
        for path in [stage.path, *stage.path.rglob("*")]:
            (sync_folder if path.is_dir() else sync_file)(path)
        try:
            stage.publish()
        except StoreExistsError:
            return False  # somebody else pulled it meanwhile
    return True


def push_store(cache_path: Path, name: str, place: RemotePlace, *, read_back: bool = False) -> bool:
    """Copy a store from a cache on this machine to an address.

    The file with the seal is sent last, so that a reader sees a whole store or none, and what an interrupted
    copy has sent is not sent again.

    Parameters
    ----------
    cache_path, name
        The cache and the store's path below it.
    place
        The cache at an address.
    read_back
        Fetch every file that was sent and compare it with the seal; otherwise its size is compared.

    Returns
    -------
    bool
        False where it is there already.

    Raises
    ------
    CorruptStoreError
        The store on this machine is damaged, or what arrived is not what was sent.
    StoreExistsError
        Another store of that name is there.
    """
    source, target = cache_path / name, f"{place.root}/{name}"
    reader = reader_of(source)
    reader.header()
    problems = reader.byte_problems()
    if problems:
        raise CorruptStoreError(f"{source}: {problems[0]}")
    if isinstance(reader, ZarrReader):
        last = (source / ROOT).read_bytes()
        if _is_there(place, f"{target}/{ROOT}", last):
            return False
        for file, (size, digest) in reader.files().items():
            _send(place, source / file, f"{target}/{file}", size, digest if read_back else None)
        place.fs.pipe_file(f"{target}/{ROOT}", last)
        if cat(place.fs, f"{target}/{ROOT}") != last:
            raise CorruptStoreError(f"{place.title}/{name}/{ROOT}: what arrived is not what was sent")
        return True
    size = source.stat().st_size
    if _size(place, target) == size:
        if bytes(place.fs.cat_file(target, start=size - HEX, end=size)) != _last_bytes(source):
            raise StoreExistsError(f"{place.title}/{name} is there already, and another store than {source}")
        return False
    _send(place, source, target, size, digest_file(source).sha256 if read_back else None)
    return True


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-HEX, os.SEEK_END)
        return file.read()


def _is_there(place: RemotePlace, path: str, expected: bytes) -> bool:
    found = cat(place.fs, path)
    if found is not None and found != expected:
        raise StoreExistsError(f"{path} is there already, of another store; delete that one first")
    return found is not None


def _size(place: RemotePlace, path: str) -> int | None:
    place.fs.invalidate_cache()
    try:
        return int(place.fs.info(path)["size"])
    except FileNotFoundError:
        return None


def _send(place: RemotePlace, source: Path, target: str, size: int, digest: str | None) -> None:
    if _size(place, target) != size:
        place.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        place.fs.put_file(str(source), target)
        if _size(place, target) != size:
            raise CorruptStoreError(f"{target}: what arrived is not as long as {source}")
    if digest is not None and hashlib.sha256(cat(place.fs, target) or b"").hexdigest() != digest:
        raise CorruptStoreError(f"{target}: what arrived is not what was sent")


def write_index(place: RemotePlace) -> int:
    """List the stores at an address in ``index.json``, for servers that list no folders; returns their
    number.
    """
    place.fs.invalidate_cache()
    names = sorted(place.walk())
    raw = json.dumps({"stores": names}, indent=0).encode()
    place.fs.pipe_file(f"{place.root}/{INDEX}", raw)
    return len(names)


def chosen_names(place: Place, chosen: Chosen) -> list[str]:
    """Return the names of the stores that a function of their header chooses; damaged ones are left to the
    copy.
    """
    names = []
    for name in place.names():
        try:
            if chosen(store_of(place.reader(name))):
                names.append(name)
        except CacheError:
            names.append(name)
    return names
