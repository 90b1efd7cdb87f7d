"""A store that is listed from a catalogue: opened, checked and compared with its row when it is first used."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cache_schema.backends.base import StoreReader
from cache_schema.format.briefs import RECORD_TEXTS, Brief, HeaderBrief
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.reading.catalogues.columns import Columns
from cache_schema.reading.catalogues.kept import KeptCatalogue
from cache_schema.reading.places.base import Place
from closerlook_common.errors import CorruptStoreError


class RowBrief(Brief):
    """The brief of a header, from a row of a catalogue."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Columns, row: int) -> None:
        self._columns, self._row = columns, row

    @property
    def identity(self) -> str:
        """The identity."""
        return self._columns.identity(self._row)

    @property
    def digest(self) -> str:
        """The digest of the store."""
        return self._columns.digest(self._row)

    @property
    def written(self) -> str:
        """When the store was sealed."""
        return self.recorded("written")

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._columns.rows(self._row)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return self._columns.arrays(self._row)

    @property
    def details(self) -> dict[str, Any]:
        """The header's ``details``."""
        return self._columns.details(self._row)

    @property
    def model_id(self) -> str:
        """The id of the model."""
        return self._columns.model(self._row).id

    @property
    def dataset_id(self) -> str:
        """The id of the dataset; empty for a head."""
        card = self._columns.dataset(self._row)
        return "" if card is None else card.id

    def model_card(self) -> ModelCard:
        """Return the model's card."""
        return self._columns.model(self._row)

    def dataset_card(self) -> DatasetCard | None:
        """Return the dataset's card as it was sealed; None for a head."""
        return self._columns.dataset(self._row)

    def recorded(self, name: str) -> str:
        """Return one of ``RECORD_TEXTS``, empty if the record has no such text."""
        return self._columns.texts(name)[self._row]


class Catalogue:
    """A catalogue that was loaded, and the cache that it is of.

    Parameters
    ----------
    place
        The cache.
    kept
        Where the catalogue is kept.
    columns
        What was loaded.
    """

    def __init__(self, place: Place, kept: KeptCatalogue, columns: Columns) -> None:
        self.place, self.kept, self.columns = place, kept, columns


class ListedReader(StoreReader):
    """The reader of a store of a catalogue; see :class:`StoreReader`.

    Only :meth:`brief` answers from the catalogue. Everything else opens the store first.

    Parameters
    ----------
    catalogue
        The catalogue.
    row
        Of the store in it.
    name
        Path of the store below its cache.
    """

    def __init__(self, catalogue: Catalogue, row: int, name: str) -> None:
        self._catalogue, self._row, self._name = catalogue, row, name

    @property
    def path(self) -> Path:
        """The path of the store."""
        return self._catalogue.place.folder / self._name

    @property
    def title(self) -> str:
        """The name of the store in errors."""
        return str(self.path)

    def brief(self) -> Brief:
        """Return the facts of the header, from the catalogue."""
        return RowBrief(self._catalogue.columns, self._row)

    @cached_property
    def _opened(self) -> StoreReader:
        """The reader of the store; CorruptStoreError if the store is not the one that was listed."""
        reader = self._catalogue.place.reader(self._name)
        header = reader.header()
        reader.check()
        if header["kind"] == self._catalogue.columns.kinds[self._row] and is_brief_of(self.brief(), header):
            return reader
        if self._catalogue.place.signatures([self._name]) != [self._catalogue.columns.signatures[self._row]]:
            raise CorruptStoreError(f"{self.title} was replaced while it was read; run the same command again")
        self._catalogue.kept.discard()
        raise CorruptStoreError(
            f"{self.title} is not what the catalogue of this cache holds of it; the catalogue was deleted, run the same"
            " command again"
        )

    def header(self) -> dict[str, Any]:
        """Return the verified header."""
        return self._opened.header()

    def check(self) -> None:
        """Check the store's structure."""
        self._opened.check()

    def is_checked_by_header(self) -> bool:
        """Return True: other stores are not in a catalogue."""
        return True

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array."""
        return self._opened.read(name, start, stop)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array that exists on disk."""
        return self._opened.arrays()

    def byte_problems(self) -> list[str]:
        """Return what is wrong with the bytes on disk."""
        return self._opened.byte_problems()

    def n_bytes(self) -> int:
        """Return the size on disk."""
        return self._opened.n_bytes()


def is_brief_of(brief: Brief, header: dict[str, Any]) -> bool:
    """Return whether a brief holds what a header holds."""
    other = HeaderBrief(header)
    return (
        (brief.identity, brief.digest, brief.written, brief.rows)
        == (other.identity, other.digest, other.written, other.rows)
        and (brief.arrays, brief.details) == (other.arrays, other.details)
        and brief.model_card() == other.model_card()
        and brief.dataset_card() == other.dataset_card()
        and all(brief.recorded(name) == other.recorded(name) for name in RECORD_TEXTS)
    )
