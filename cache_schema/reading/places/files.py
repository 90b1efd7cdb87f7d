"""The files of a Zarr store at an address: fetched when needed, and compared with the seal."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cache_schema.backends.sources import FileSource
from cache_schema.backends.zarr_v3 import FILES, ROOT
from cache_schema.format.schema import FORMAT
from cache_schema.format.seal import digest_file
from cache_schema.reading.places.addresses import is_plain_name
from cache_schema.reading.places.mirror import touch
from cache_schema.reading.places.wire import LARGE, Wire
from closerlook_common.errors import CorruptStoreError

SMALL_STORE = 8 << 20
"""Largest summary, head or the like in bytes that is fetched whole with its first file, to save round trips.
"""
SMALL_FILE = 32 << 10
"""Largest files in bytes (metadata of arrays, say) that are fetched with a store's first file, to save round trips.
"""
WRONG_ANSWERS = 3
"""How often to fetch wrong bytes before the store counts as damaged."""


_SHA256 = re.compile("[0-9a-f]{64}")


class RemoteFiles(FileSource):
    """Files of a Zarr store at an address; ``folder`` holds those that were fetched.

    Parameters
    ----------
    wire
        Connection to the cache.
    name
        Of the store below the cache.
    folder
        See :class:`FileSource`.
    root
        Bytes of the store's root ``zarr.json``.
    keep
        Writes a fetched file; :func:`closerlook_common.user_cache.write_whole` or a mirror's.
    """

    def __init__(self, wire: Wire, name: str, folder: Path, root: bytes, keep: Callable[[Path, bytes], None]) -> None:
        super().__init__(folder, f"{wire.title}/{name}")
        self._wire, self._name, self._root, self._keep = wire, name, root, keep
        self._good: set[str] = set()
        self._sealed: dict[str, tuple[int, str]] | None = None
        self._alone = True

    def sealed(self) -> dict[str, tuple[int, str]]:
        """Return size and SHA-256 of every file of the store; CorruptStoreError for a name that leads out of it."""
        if self._sealed is None:
            try:
                listed = json.loads(self._root)["attributes"][FILES]["files"]
                names = list(listed.keys())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise CorruptStoreError(f"{self.title}/{ROOT} lists no files") from None
            for name in names:
                if not all(map(is_plain_name, name.split("/"))):
                    raise CorruptStoreError(f"{self.title}/{ROOT} lists {name!r}, which is not a file of a store")
                _check_seal(listed[name], f"{self.title}/{ROOT}: {name}")
            self._sealed = {name: (size, digest) for name, (size, digest) in listed.items()}
        return self._sealed

    def fetch(self, name: str) -> bytes | None:
        """Return the bytes of a small file."""
        if name == ROOT:
            return self._root
        if name not in self.sealed():
            return None
        self.need({name: self.sealed()[name]})
        return (self.folder / name).read_bytes()

    def need(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Fetch missing files, and compare them with the seal."""
        missing = [name for name in files if not self._is_here(name)]
        if not missing:
            return
        if self._alone:
            self._alone = False
            missing += [name for name in self._companions() if name not in files and not self._is_here(name)]
        small = [name for name in missing if self.sealed()[name][0] <= LARGE]
        self._wire.each(self._fetch_checked, small)
        self._wire.each(self._fetch_checked, sorted(set(missing) - set(small)), large=True)

    def _companions(self) -> list[str]:
        sealed = self.sealed()
        is_small = sum(size for size, _ in sealed.values()) <= SMALL_STORE
        if is_small and json.loads(self._root)["attributes"][FORMAT]["kind"] != "predictions":
            return list(sealed)
        return [name for name, (size, _) in sealed.items() if size <= SMALL_FILE]

    def _is_here(self, name: str) -> bool:
        path = self.folder / name
        if not touch(path):
            return False
        if name not in self._good:
            if tuple(digest_file(path)) != self.sealed()[name]:
                path.unlink(missing_ok=True)  # damaged on this disk: fetch it again
                return False
            self._good.add(name)
        return True

    def _fetch_checked(self, name: str) -> None:
        size, digest = self.sealed()[name]
        problem = ""
        for _ in range(WRONG_ANSWERS):
            raw = self._wire.cat(f"{self._name}/{name}", size)
            if raw is None:
                problem = "is missing"
                break
            if len(raw) == size and hashlib.sha256(raw).hexdigest() == digest:
                self._keep(self.folder / name, raw)
                self._good.add(name)
                return
            problem = f"its bytes are not those that were sealed ({len(raw)} came, {size} were sealed)"
        if self._wire.cat(f"{self._name}/{ROOT}") != self._root:
            raise CorruptStoreError(f"{self.title} was replaced while it was read; run the same command again")
        raise CorruptStoreError(f"{self.title}/{name}: {problem}; write the store there again")


def _check_seal(entry: object, where: str) -> None:
    """Refuse an entry that is not a pair of a size and a SHA-256."""
    if isinstance(entry, list) and len(entry) == 2:
        size, digest = entry
        if type(size) is int and 0 <= size < 1 << 50 and isinstance(digest, str) and _SHA256.fullmatch(digest):
            return
    raise CorruptStoreError(f"{where}: not the size and digest of a file")
