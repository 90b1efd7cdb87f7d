"""Copy sealed stores from an address into a cache on this machine: whole, verified, resumable."""

from __future__ import annotations

import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.syncing import sync_file, sync_folder
from cache_schema.backends.zarr_v3 import ROOT, ZarrReader
from cache_schema.format.naming import backend_of
from cache_schema.reading.places.addresses import is_address, is_plain_name
from cache_schema.reading.places.base import LocalPlace, Place
from cache_schema.reading.places.files import RemoteFiles
from cache_schema.reading.places.hdf5 import fetch_file, is_sealed
from cache_schema.reading.places.opening import open_place
from cache_schema.reading.places.remote import RemotePlace, announced_size
from cache_schema.reading.places.wire import Wire
from cache_schema.writing.staging import Stage, adopt
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, CloserlookError, CorruptStoreError, StoreExistsError, is_full
from closerlook_common.user_cache import write_whole


def colliding(names: Sequence[str], cache_path: Path) -> dict[str, str]:
    """Return the stores whose names collide on file systems that ignore case or Unicode form.

    Parameters
    ----------
    names
        Stores to copy.
    cache_path
        The cache to copy into; its stores are kept.

    Returns
    -------
    dict
        Name to the name that it collides with. The name in lower case stays (names of stores are), else the first.
    """
    kept = {_folded(name): name for name in (LocalPlace(cache_path).names() if cache_path.is_dir() else ())}
    found = {}
    for name in sorted(names, key=lambda name: (name != _folded(name), name)):
        other = kept.setdefault(_folded(name), name)
        if other != name:
            found[name] = other
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def pull_store(place: RemotePlace, name: str, cache_path: Path) -> bool:
    """Copy a store from an address into a cache on this machine.

    Files of an interrupted copy of the same store are reused if they match the seal.

    Parameters
    ----------
    place, name
        The place, and one of ``place.names()``.
    cache_path
        The cache to copy into; the store keeps its name.

    Returns
    -------
    bool
        False if the cache has it already.

    Raises
    ------
    CorruptStoreError
        The fetched bytes do not match the seal; nothing is published.
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
                stage.leave()  # the next copy resumes from there
            raise
        found = reader_of(stage.path).byte_problems()
        if found:
            raise CorruptStoreError(f"{place.title}/{name}: {found[0]}")
        for path in [stage.path, *stage.path.rglob("*")]:
            (sync_folder if path.is_dir() else sync_file)(path)
        try:
            stage.publish()
        except StoreExistsError:
            return False  # another process pulled it meanwhile
    return True


def _pull_zarr(wire: Wire, name: str, path: Path) -> None:
    title = f"{wire.title}/{name}"
    raw = wire.cat(f"{name}/{ROOT}")
    if raw is None:
        raise CacheError(f"{title} has no {ROOT}")
    source = RemoteFiles(wire, name, path, raw, write_whole)
    files = ZarrReader(path, source).files()
    for found in list(path.rglob("*")):  # left by an interrupted copy of another store of that name
        if not found.is_dir() and found.relative_to(path).as_posix() not in files:
            found.unlink()
    source.need(files)
    write_whole(path / ROOT, raw)


def _pull_hdf5(wire: Wire, name: str, path: Path) -> None:
    """Fetch a file part by part, after the parts fetched earlier; start again if those were of another file."""
    title = f"{wire.title}/{name}"
    info = wire.info(name)
    if info is None:
        raise CacheError(f"{title} is missing")
    size, free = announced_size(info, title), shutil.disk_usage(path.parent).free
    if size > free:
        raise CacheError(f"{title} has {size:,} bytes, and the disk of {path.parent} has room for {free:,}")
    in_parts = info.get("partial", True)
    fetch_file(wire, name, path, size, in_parts=in_parts)
    if path.stat().st_size != size or not is_sealed(path):
        path.unlink()
        fetch_file(wire, name, path, size, in_parts=in_parts)


def stores_at(address: str) -> tuple[Place, list[str]]:
    """Return the place of an address and the names of its stores; for a store's address, only that store."""
    assert is_address(address)
    if backend_of(address.rstrip("/")) is None:
        place = open_place(address)
        return place, place.names()
    address = address.rstrip("/")
    # Its folder may be the model's or that of a kind below it; the cache is above either.
    folder, _, name = address.rpartition("/")
    return open_place(folder), [name]


def check_remote(place: Place, name: str, *, bytes_only: bool) -> list[str]:
    """Return everything that is wrong with a store at an address, from a temporary copy."""
    if not isinstance(place, RemotePlace):
        return problems(place.folder / name, bytes_only=bytes_only)
    with tempfile.TemporaryDirectory(prefix="closerlook-check-") as folder:
        inner = Path(folder)
        if "/" not in name:  # as in its cache, so that its path can be checked
            inner = inner.joinpath(*[part for part in place.title.split("/")[-2:] if is_plain_name(part)])
        try:
            pull_store(place, name, inner)
        except CloserlookError as error:
            return [str(error)]
        return problems(inner / name, bytes_only=bytes_only)
