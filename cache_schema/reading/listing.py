"""List the stores of a place: those whose header did not change since it was read are not opened again."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cache_schema.backends.base import StoreReader
from cache_schema.format.dataset_facts import DatasetFacts, Recorded
from cache_schema.reading.catalogues.kept import KeptCatalogue
from cache_schema.reading.catalogues.listed import Catalogue, ListedReader
from cache_schema.reading.catalogues.rows import Row, row_of
from cache_schema.reading.open_stores import listed_store, store_of
from cache_schema.reading.places.base import Place, Signature
from cache_schema.reading.store import Store
from closerlook_common.errors import CacheError

WORTH = 200
"""Number of headers to read from which a catalogue is used: reading so many takes as long as loading a large one."""
SHARE = 100
"""A catalogue is written again where one of so many of its stores is new: this takes as long as to open those again."""
SETTLED_NS = 3_000_000_000
"""A header that changed so lately is not kept: a second change could leave the same time behind."""
_TRIES = 20
"""How often to read a store that is being replaced."""


class Refused(NamedTuple):
    """A store that cannot be used, and why."""

    path: Path
    reason: str


class _Found(NamedTuple):
    """A store, and the state of its header's file when it was read; None if that is not known."""

    signature: Signature | None
    store: Store


class Listing:
    """The stores of a place as they are at each call.

    Parameters
    ----------
    place
        The cache.

    Attributes
    ----------
    refused
        Path below the cache -> the store that cannot be used, as of the last calls.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept = KeptCatalogue(place.folder) if place.is_local else None
        self._catalogue: Catalogue | None = None
        self._known: dict[str, _Found] = {}
        self.refused: dict[str, Refused] = {}

    def stores(self, asked: Sequence[str], names: Sequence[str], *, whole: bool) -> list[Store]:
        """Return stores by name, without those that cannot be used or were removed meanwhile.

        Garbage is not looked for meanwhile: many objects are made, all of which are kept, and looking through them
        takes as long as making them.

        Parameters
        ----------
        asked
            Paths below the cache.
        names
            All that were found, of which ``asked`` are some.
        whole
            Whether ``names`` are all stores of the cache.
        """
        with _no_garbage():
            return self._stores(asked, names, whole=whole)

    def _stores(self, asked: Sequence[str], names: Sequence[str], *, whole: bool) -> list[Store]:
        if self._catalogue is not None and self._catalogue.kept.is_wrong:
            self._catalogue = None
            self._known.clear()
        self._place.prepare(asked)
        begun, signatures = time.time_ns(), self._place.signatures(asked)
        there = set(names)
        known = self._known
        if whole and (gone := known.keys() - there):
            for path in gone:
                del known[path]
        unknown = [
            (path, now)
            for path, now in zip(asked, signatures, strict=True)
            if path not in known or known[path].signature != now
        ]
        keep = len(unknown) >= WORTH and self._kept is not None
        if keep:
            self._from_catalogue(unknown)
        stores, refused = [], dict[str, Refused]()
        rows: list[Row] = []
        for path, now in zip(asked, signatures, strict=True):
            found = known.get(path)
            if found is None or found.signature is None or found.signature != now:
                known.pop(path, None)
                try:
                    opened = self._open(path)
                except (CacheError, OSError) as error:
                    refused[path] = Refused(self._place.folder / path, str(error))
                    continue
                if opened is None:
                    continue
                reader, found = opened
                known[path] = found
                if keep and (row := _row(path, found.signature, reader, begun)):
                    rows.append(row)
            stores.append(found.store)
        if rows:
            self._keep(rows, there, whole=whole)
        _give_facts(stores, self._place.recorded())
        # Update the stores that were asked for, keep the others, forget those that were removed.
        if self.refused or refused:
            done = set(asked)
            older = {key: old for key, old in self.refused.items() if key not in done and (key in there or not whole)}
            self.refused = {**older, **refused}
        return stores

    def _from_catalogue(self, unknown: Sequence[tuple[str, Signature | None]]) -> None:
        """Add the stores whose headers are those that the catalogue holds."""
        columns = None if self._kept is None else self._kept.load()
        if self._kept is None or columns is None:
            return
        self._catalogue = catalogue = Catalogue(self._place, self._kept, columns)
        row_of_path, listed, kinds, known = columns.row_of, columns.signatures, columns.kinds, self._known
        for path, now in unknown:
            row = row_of_path.get(path)
            if row is not None and listed[row] == now:
                known[path] = _Found(now, listed_store(ListedReader(catalogue, row, path), kinds[row]))

    def _keep(self, rows: Sequence[Row], there: Collection[str], *, whole: bool) -> None:
        """Write the catalogue again if it lacks many stores."""
        if self._kept is None or len(rows) < max(WORTH, len(there) // SHARE):
            return
        merged = {row.path: row for row in rows}
        if self._catalogue is not None and not self._kept.is_wrong:
            columns = self._catalogue.columns
            for path, i in columns.row_of.items():
                if path not in merged and (path in there or not whole):
                    merged[path] = columns.row(i)
        self._kept.save([merged[path] for path in sorted(merged)])

    def _open(self, path: str) -> tuple[StoreReader, _Found] | None:
        """Open a store; None if it was removed since the listing."""
        for again in reversed(range(_TRIES)):
            at = self._link(path)
            try:
                (before,) = self._place.signatures([path])
                store = store_of(reader := self._place.reader(path))
                store.model_id, store.dataset_id, store.written  # noqa: B018  kept now, as the header may be packed later
                (after,) = self._place.signatures([path])
                return reader, _Found(before if before == after else None, store)
            except (CacheError, OSError):
                if not self._place.is_local:
                    raise
                if (now := self._link(path)) is None:
                    return None
                if now == at or not again:  # otherwise the store was replaced meanwhile
                    raise
        raise AssertionError

    def _link(self, path: str) -> tuple[int, int] | None:
        try:
            status = (self._place.folder / path).lstat()  # a dangling link exists, and is refused
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _row(path: str, signature: Signature | None, reader: StoreReader, begun: int) -> Row | None:
    """Return the row of a store that was just opened; None if another file than the header's may show damage."""
    if signature is None or max(signature[1:3]) > begun - SETTLED_NS or not reader.is_checked_by_header():
        return None
    return row_of(path, signature, reader.header())


def _give_facts(stores: Sequence[Store], recorded: Recorded) -> None:
    """Give each store the facts that the cache records of its dataset."""
    of_dataset: dict[str, DatasetFacts | None] = {}
    for store in stores:
        if not recorded.records:
            store.use_facts(None)
            continue
        dataset = store.dataset_id
        if dataset not in of_dataset:
            facts = recorded.facts(dataset) if dataset else ()
            of_dataset[dataset] = facts[0] if len(facts) == 1 else None
        store.use_facts(of_dataset[dataset])
