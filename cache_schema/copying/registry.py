"""A list of published caches: which stores lie where, so that a model is run only once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_schema.copying.description import Description
from cache_schema.format.strict_json import parse_json
from cache_schema.reading.places.addresses import Address, is_address
from cache_schema.reading.places.wire import Wire
from closerlook_common.errors import UserError

FORMAT, VERSION = "closerlook-index", 1
BYTES = 64 << 20
"""Largest list that is read."""


@dataclass(frozen=True)
class Entry:
    """One published store.

    Attributes
    ----------
    address
        Of its cache.
    cache
        Digest of the cache.
    name, kind, model, dataset, identity, digest
        As in the cache's description.
    """

    address: str
    cache: str
    name: str
    kind: str
    model: str
    dataset: str
    identity: str
    digest: str


class Index:
    """A list of published caches in a file or at an address.

    Parameters
    ----------
    where
        A path or an address of a JSON file; what is not there yet is an empty list.
    """

    def __init__(self, where: str) -> None:
        text = where if is_address(where) else f"file://{Path(where).absolute()}"
        folder, _, self._name = text.rpartition("/")
        if not self._name.endswith(".json"):
            raise UserError(f"{where} is not an index: name a .json file")
        self._wire = Wire(Address(folder), {})
        self.title = f"{self._wire.title}/{self._name}" if is_address(where) else where

    def caches(self) -> list[Mapping[str, Any]]:
        """Return what is listed.

        Raises
        ------
        UserError
            The file is not such a list.
        """
        raw = self._wire.cat(self._name, BYTES)
        if raw is None:
            return []
        try:
            record = parse_json(raw)
        except ValueError as error:
            raise UserError(f"{self.title} is not an index of caches: {error}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(f"{self.title} is not an index of caches: it does not say 'format': '{FORMAT}'")
        if record.get("version") != VERSION:
            raise UserError(f"{self.title} has version {record.get('version')!r}; this program reads {VERSION}")
        caches = record.get("caches")
        if not isinstance(caches, list) or not all(_is_cache(cache) for cache in caches):
            raise UserError(f"{self.title} is not an index of caches: its list of caches is damaged")
        return caches

    def add(self, address: str, description: Description) -> None:
        """List a cache; another one of the same address is replaced."""
        d = description
        keys = ("name", "kind", "model", "dataset", "identity", "digest")
        entry = {
            "address": address,
            "title": d.title,
            "digest": d.digest,
            "bytes": d.size,
            "stores": [[getattr(store, key) for key in keys] for store in d.stores],
        }
        kept = [cache for cache in self.caches() if cache["address"] != address]
        record = {"format": FORMAT, "version": VERSION, "caches": [*kept, entry]}
        self._wire.write(self._name, (json.dumps(record, indent=0) + "\n").encode())

    def stores(self) -> Iterator[Entry]:
        """Return every listed store.

        Raises
        ------
        UserError
            There is no such file, or it is not such a list.
        """
        if self._wire.cat(self._name, BYTES) is None:
            raise UserError(f"there is no index at {self.title}; 'python -m cache_schema publish --index' writes one")
        for cache in self.caches():
            for store in cache["stores"]:
                yield Entry(cache["address"], cache["digest"], *store)


def _is_cache(cache: object) -> bool:
    if not isinstance(cache, dict) or not all(
        isinstance(cache.get(key), str) for key in ("address", "digest", "title")
    ):
        return False
    stores = cache.get("stores")
    return isinstance(stores, list) and all(
        isinstance(store, list) and len(store) == 6 and all(isinstance(part, str) for part in store) for store in stores
    )
