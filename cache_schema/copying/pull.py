"""Copies sealed stores from an address into a cache on this machine: whole, verified, resumable."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.hdf5 import HEX
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.errors import CacheError, CloserlookError, CorruptStoreError, StoreExistsError, is_full
from cache_schema.naming import backend_of
from cache_schema.places.addresses import is_address, is_plain_name
from cache_schema.places.base import Place
from cache_schema.places.files import RemoteFiles
from cache_schema.places.opening import open_place
from cache_schema.places.remote import RemotePlace
from cache_schema.places.wire import Wire
from cache_schema.seal import digest_file
from cache_schema.staging import Stage, adopt, sync_file, sync_folder
from cache_schema.user_cache import write_whole
from cache_schema.validate import problems

PART = 16 << 20
"""Bytes of an HDF5 file that one request fetches; what has come is not fetched again."""


def pull_store(place: RemotePlace, name: str, cache_path: Path) -> bool:
    """Copy a store from an address into a cache on this machine.

    What an interrupted copy of the same store has fetched is taken over, if its bytes are those that were sealed.

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
        adopt(stage)
        try:
            (_pull_hdf5 if backend_of(name) == "hdf5" else _pull_zarr)(place.wire, name, stage.path)
        except CorruptStoreError:
            raise
        except BaseException as error:
            if not is_full(error):
                stage.leave()  # the next copy goes on from there
            raise
        found = reader_of(stage.path).byte_problems()
        if found:
            raise CorruptStoreError(f"{place.title}/{name}: {found[0]}")
        for path in [stage.path, *stage.path.rglob("*")]:
            (sync_folder if path.is_dir() else sync_file)(path)
        try:
            stage.publish()
        except StoreExistsError:
            return False  # somebody else pulled it meanwhile
    return True


def _pull_zarr(wire: Wire, name: str, path: Path) -> None:
    title = f"{wire.title}/{name}"
    raw = wire.cat(f"{name}/{ROOT}")
    if raw is None:
        raise CacheError(f"{title} has no {ROOT}")
    source = RemoteFiles(wire, name, path, raw, write_whole)
    files = ZarrReader(path, source).files()
    for found in list(path.rglob("*")):  # of an interrupted copy of another store of that name
        if not found.is_dir() and found.relative_to(path).as_posix() not in files:
            found.unlink()
    source.need(files)
    write_whole(path / ROOT, raw)


def _pull_hdf5(wire: Wire, name: str, path: Path) -> None:
    """Fetch a file part by part, behind what is there already; from the start where that was of another file."""
    title = f"{wire.title}/{name}"
    info = wire.info(name)
    if info is None:
        raise CacheError(f"{title} is missing")
    size = info.get("size")
    if size is None or not info.get("partial", True) or not _append(wire, name, path, int(size)):
        wire.download(name, path)
        return
    if path.stat().st_size == size and _is_sealed(path):
        return
    path.unlink()
    _append(wire, name, path, int(size))


def _append(wire: Wire, name: str, path: Path, size: int) -> bool:
    """Fetch what a file lacks; False where the server sends whole files only."""
    with path.open("ab") as file:
        start = file.tell()
        while start < size:
            stop = min(start + PART, size)
            raw = wire.part(name, start, stop)
            if raw is None:
                raise CacheError(f"{wire.title}/{name} is missing")
            if len(raw) > stop - start:
                return False
            file.write(raw)
            start = stop
    return True


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(HEX, path.stat().st_size), os.SEEK_END)
        end = file.read()
    return digest_file(path, stop=path.stat().st_size - len(end)).sha256.encode() == end


def stores_at(address: str) -> tuple[Place, list[str]]:
    """Return the place of an address and the names of its stores; of a store's own address that one."""
    assert is_address(address)
    if backend_of(address.rstrip("/")) is None:
        place = open_place(address)
        return place, place.names()
    address = address.rstrip("/")
    # Its folder may be the model's or that of a kind below it; the cache is above either.
    folder, _, name = address.rpartition("/")
    return open_place(folder), [name]


def check_remote(place: Place, name: str, *, bytes_only: bool) -> list[str]:
    """Return everything that is wrong with a store at an address; it is on this machine for a moment."""
    if not isinstance(place, RemotePlace):
        return problems(place.folder / name, bytes_only=bytes_only)
    with tempfile.TemporaryDirectory(prefix="closerlook-check-") as folder:
        inner = Path(folder)
        if "/" not in name:  # as in its cache, so that its place can be checked
            inner = inner.joinpath(*[part for part in place.title.split("/")[-2:] if is_plain_name(part)])
        try:
            pull_store(place, name, inner)
        except CloserlookError as error:
            return [str(error)]
        return problems(inner / name, bytes_only=bytes_only)

