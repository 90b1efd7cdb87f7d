"""Copy sealed stores from a cache on this machine to an address: whole, verified, resumable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cache_schema.backends import reader_of
from cache_schema.backends.hdf5 import HEX, MAGIC, TAIL
from cache_schema.backends.zarr_v3 import FILES, ROOT, ZarrReader
from cache_schema.format.seal import digest_file, verify_digest
from cache_schema.format.strict_json import parse_json
from cache_schema.reading.places.addresses import is_address, not_an_address
from cache_schema.reading.places.remote import INDEX, RemotePlace
from cache_schema.reading.places.wire import LARGE, Wire
from closerlook_common.errors import CacheError, CorruptStoreError, StoreExistsError, UserError

PART = 16 << 20
"""Bytes to read back per request."""
MARK = ".pushing-"
"""Name of a file next to an unfinished copy; it names which store the copied files belong to."""


def open_target(address: str) -> RemotePlace:
    """Return the place of an address after checking that it can be written to.

    Raises
    ------
    UserError
        The address is a web server, or not an address.
    CacheError
        The place cannot be written to; the message says why.
    """
    if not is_address(address):
        raise not_an_address(address)
    place = RemotePlace(address)
    if place.wire.address.is_web:
        raise UserError(
            f"{place.title}: a web server cannot be written to; push to the storage behind it (s3://, gs://, file:///FOLDER)"
        )
    place.wire.write(f"{MARK}probe", b"")
    place.wire.remove(f"{MARK}probe")
    return place


def push_store(cache_path: Path, name: str, place: RemotePlace, *, read_back: bool = False) -> bool:
    """Copy a store from a cache on this machine to an address.

    The file with the seal is sent last, so that readers see a whole store or none. Files that an interrupted copy of
    the same store has sent are not sent again.

    Parameters
    ----------
    cache_path, name
        The cache and the store's path below it.
    place
        The cache at an address.
    read_back
        Fetch every sent file and compare it with the seal; otherwise compare only sizes.

    Returns
    -------
    bool
        False if the place has it already.

    Raises
    ------
    CorruptStoreError
        The local store is damaged, or the bytes that arrived differ from those sent.
    StoreExistsError
        The place has another store of that name.
    """
    reader = reader_of(cache_path / name)
    reader.header()
    if isinstance(reader, ZarrReader):
        return _push_zarr(cache_path / name, name, reader, place.wire, read_back)
    return _push_hdf5(cache_path / name, name, place.wire, read_back)


def _check_bytes(path: Path) -> None:
    problems = reader_of(path).byte_problems()
    if problems:
        raise CorruptStoreError(f"{path}: {problems[0]}")


def _another(wire: Wire, name: str) -> StoreExistsError:
    return StoreExistsError(f"{wire.title}/{name} exists already and is another store; delete that one first")


def _push_zarr(path: Path, name: str, reader: ZarrReader, wire: Wire, read_back: bool) -> bool:
    root = (path / ROOT).read_bytes()
    found = wire.cat(f"{name}/{ROOT}")
    if found == root:
        return False
    if found is not None and _is_whole(found):
        raise _another(wire, name)
    _check_bytes(path)
    files = reader.files()
    folder, _, last = name.rpartition("/")
    mark, digest = f"{folder}/{MARK}{last}", hashlib.sha256(root).hexdigest().encode()
    # Files of an interrupted copy count only if they are of the same store; sizes alone prove little.
    arrived = wire.sizes_below(name) if wire.cat(mark) == digest else {}
    if not arrived:
        wire.write(mark, digest)
    left = [file for file, (size, _) in files.items() if arrived.get(file) != size]
    small = [file for file in left if files[file][0] <= LARGE]
    wire.each(lambda file: wire.upload(path / file, f"{name}/{file}"), small)
    wire.each(lambda file: wire.upload(path / file, f"{name}/{file}"), sorted(set(left) - set(small)), large=True)
    arrived = wire.sizes_below(name)
    for file, (size, _) in files.items():
        if arrived.get(file) != size:
            came = arrived.get(file, 0)
            raise CorruptStoreError(f"{wire.title}/{name}/{file}: {came} bytes arrived, {size} were sent")
    if read_back:
        wire.each(lambda file: _compare(wire, f"{name}/{file}", *files[file]), list(files), large=True)
    wire.write(f"{name}/{ROOT}", root)
    if wire.cat(f"{name}/{ROOT}") != root:
        raise CorruptStoreError(f"{wire.title}/{name}/{ROOT}: the bytes that arrived are not those sent")
    wire.remove(mark)
    return True


def _is_whole(root: bytes) -> bool:
    """Return whether a root ``zarr.json`` is complete, not cut off by an interrupted copy."""
    try:
        verify_digest(root, ROOT)
        return bool(parse_json(root)["attributes"][FILES]["files"])
    except (CacheError, ValueError, KeyError, TypeError):
        return False


def _push_hdf5(path: Path, name: str, wire: Wire, read_back: bool) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size - HEX)
        end = file.read()
    there = _size(wire, name)
    if there is not None and there >= TAIL:
        found = wire.part(name, there - HEX - len(MAGIC), there) or b""
        if there == size and found[-HEX:] == end:
            return False
        if found[: len(MAGIC)] == MAGIC:
            raise _another(wire, name)
    _check_bytes(path)
    wire.upload(path, name)
    arrived = _size(wire, name)
    if arrived != size:
        raise CorruptStoreError(f"{wire.title}/{name}: {arrived or 0} bytes arrived, {size} were sent")
    if read_back:
        _compare(wire, name, size, digest_file(path).sha256)
    return True


def _size(wire: Wire, name: str) -> int | None:
    info = wire.info(name)
    return None if info is None else int(info["size"])


def _compare(wire: Wire, name: str, size: int, digest: str) -> None:
    running = hashlib.sha256()
    for start in range(0, size, PART):
        running.update(wire.part(name, start, min(start + PART, size)) or b"")
    if running.hexdigest() != digest:
        raise CorruptStoreError(f"{wire.title}/{name}: the bytes that arrived are not those sent")


def write_index(place: RemotePlace) -> int:
    """List the stores at an address in ``index.json``, for servers that cannot list folders; return how many."""
    names = place.walk(), place.record_names()
    while True:
        place.wire.write(INDEX, json.dumps({"stores": names[0], "datasets": names[1]}, indent=0).encode())
        again = place.walk(), place.record_names()
        if again == names:
            return len(names[0])
        names = again  # another process may push too: the last to write has seen all stores
