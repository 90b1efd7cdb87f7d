"""The files of a Zarr store at an address: the seal in, verified files on this machine out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from cache_schema.backends.sources import FileSource
from cache_schema.backends.zarr_v3 import FILES, ROOT
from cache_schema.errors import CorruptStoreError
from cache_schema.places.addresses import is_plain_name
from cache_schema.places.mirror import touch
from cache_schema.places.wire import LARGE, Wire
from cache_schema.schema import FORMAT
from cache_schema.seal import digest_file

SMALL_STORE = 8 << 20
"""Bytes of a summary (a head ...) that is fetched as a whole with the first of its files: a hundred columns are a
hundred round trips otherwise.
"""
SMALL_FILE = 32 << 10
"""Bytes of the files, those of the arrays' metadata among them, that come along with the first of any other store:
a round trip costs more.
"""
WRONG_ANSWERS = 3
"""How often bytes that are not those sealed are fetched before the store counts as damaged."""


class RemoteFiles(FileSource):
    """Files of a Zarr store at an address; those that were needed lie in ``folder``.

    Parameters
    ----------
    wire
        How the cache is reached.
    name
        Of the store below the cache.
    folder
        See :class:`FileSource`.
    root
        The bytes of the store's own ``zarr.json``.
    keep
        Writes a file that was fetched; :func:`cache_schema.user_cache.write_whole` or a mirror's.
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
            listed = json.loads(self._root)["attributes"][FILES]["files"]
            for name in listed:
                if not all(map(is_plain_name, name.split("/"))):
                    raise CorruptStoreError(f"{self.title}/{ROOT} lists {name!r}, which is no file of a store")
            self._sealed = {name: (int(size), str(digest)) for name, (size, digest) in listed.items()}
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
        """Fetch what is not here yet, and compare it with the seal."""
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
                path.unlink(missing_ok=True)  # the disk's fault, not the server's: fetched anew
                return False
            self._good.add(name)
        return True

    def _fetch_checked(self, name: str) -> None:
        size, digest = self.sealed()[name]
        problem = ""
        for _ in range(WRONG_ANSWERS):
            raw = self._wire.cat(f"{self._name}/{name}")
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
        raise CorruptStoreError(f"{self.title}/{name}: {problem}; the store there must be written again")

    def are_kept(self, files: Mapping[str, tuple[int, str]]) -> bool:
        """Return whether files are still here: the block cache may have been trimmed meanwhile."""
        return all((self.folder / name).exists() for name in files)

    def signature(self, name: str) -> tuple[int, ...]:
        """Return a constant: a remote cache is read as it was when it was opened."""
        return (len(self._root),)
