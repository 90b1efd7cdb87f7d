"""Read a store: cards, record, labels, and blocks of rows of logits and features."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.backends.base import StoreReader
from cache_schema.format.centred import decode
from cache_schema.format.dataset_facts import DatasetFacts
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.row_rules import label_limit, label_problem
from cache_schema.format.schema import OFFSETS, parts_of
from cache_schema.format.text_arrays import decode_text
from closerlook_common.console.terminal import counted
from closerlook_common.errors import CorruptStoreError, UserError


class Store:
    """A published store. Opening one reads its header only.

    Parameters
    ----------
    reader
        Reader of the store's files.
    header
        Result of the reader's ``header()``.

    Attributes
    ----------
    kind
        ``predictions``, ``head``, ``reference``, ``summary`` or ``texts``.
    """

    def __init__(self, reader: StoreReader, header: dict[str, Any]) -> None:
        self._reader = reader
        self.kind: str = header["kind"]
        self._facts: DatasetFacts | None = None

    @property
    def path(self) -> Path:
        """Path of the store; for an address, the path of its files on this machine."""
        return self._reader.path

    @property
    def title(self) -> str:
        """Name in errors: the path, or the address."""
        return self._reader.title

    @property
    def header(self) -> dict[str, Any]:
        """All of the header, as JSON; not to be changed."""
        return self._reader.header()

    def __len__(self) -> int:
        return self._reader.brief().rows

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name}: {counted(len(self), 'row')}>"

    @cached_property
    def model_id(self) -> str:
        """The id of the model; of a listed store known without its header."""
        return sys.intern(self._reader.brief().model_id)

    @cached_property
    def dataset_id(self) -> str:
        """The id of the dataset, empty for a head; of a listed store known without its header."""
        return sys.intern(self._reader.brief().dataset_id)

    @cached_property
    def written(self) -> str:
        """When the store was sealed (UTC, ISO 8601); of a listed store known without its header."""
        return self._reader.brief().written

    def recorded(self, name: str) -> str:
        """Return a text of the record, empty if there is none; of a listed store known without its header.

        Parameters
        ----------
        name
            One of ``cache_schema.format.briefs.RECORD_TEXTS``.
        """
        return self._reader.brief().recorded(name)

    @cached_property
    def model(self) -> ModelCard:
        """The model's card."""
        return self._reader.brief().model_card()

    @cached_property
    def dataset(self) -> DatasetCard:
        """The dataset's card, with the facts that its cache records; UserError for a head."""
        return self.sealed_dataset if self._facts is None else self._facts.on(self.sealed_dataset)

    @cached_property
    def sealed_dataset(self) -> DatasetCard:
        """The dataset's card as it was sealed; UserError for a head."""
        card = self._reader.brief().dataset_card()
        if card is None:
            raise UserError(f"{self.title}: a store of kind {self.kind} has no dataset")
        return card

    def use_facts(self, facts: DatasetFacts | None) -> None:
        """Use the facts that the cache records of the dataset instead of the sealed ones."""
        if facts != self._facts:
            self._facts = facts
            self.__dict__.pop("dataset", None)

    @property
    def record(self) -> dict[str, Any]:
        """How the store was made: versions, command, device, speed ..."""
        record: dict[str, Any] = self.header["record"]
        return record

    @property
    def details(self) -> dict[str, Any]:
        """Small values of the content: kind of the logits, prompt set, logit scale ..."""
        return self._reader.brief().details

    @property
    def identity(self) -> str:
        """The identity of the store, 64 hexadecimal digits."""
        return self._reader.brief().identity

    @property
    def digest(self) -> str:
        """Digest of kind, details and all arrays; stores with equal digests hold equal numbers in either backend."""
        return self._reader.brief().digest

    @property
    def array_names(self) -> list[str]:
        """Names of the arrays on disk."""
        return list(self._reader.brief().arrays)

    def n_bytes(self) -> int:
        """Return the size on disk."""
        return self._reader.n_bytes()

    def has(self, name: str) -> bool:
        """Return whether the store holds an array."""
        return name in self._reader.brief().arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape, from the seal."""
        if not self.has(name):
            raise UserError(f"{self.title} holds no {name}")
        return tuple(self.header["seal"]["arrays"][name]["shape"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return rows of an array as they are stored.

        Parameters
        ----------
        name
            One of ``array_names``.
        start, stop
            First row and the row after the last; all rows by default. ``stop`` is cut to the number of rows.
        """
        rows = self.shape(name)[0]
        stop = rows if stop is None else min(stop, rows)
        if start < 0 or stop < start:
            raise UserError(f"{self.title}: rows {start} to {stop} of {name}: start must be 0 to stop")
        rows_read = self._reader.read(name, start, stop)
        if rows_read.dtype == np.bool_ and rows_read.size and rows_read.view(np.uint8).max() > 1:
            raise CorruptStoreError(f"{self.title}: {name} holds bytes that are neither true nor false")
        return rows_read

    def release(self) -> None:
        """Drop the arrays kept in memory; they are read again when needed."""
        for name in ("labels", "valid", "_centers", "image_ids", "metadata"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("_kept", None)

    def read_text(self, name: str) -> list[str]:
        """Return a whole text array."""
        try:
            return decode_text(self.read(name), self.read(name + OFFSETS))
        except (CorruptStoreError, UnicodeDecodeError) as error:
            raise CorruptStoreError(f"{self.title}: {name}: {error}") from error

    def _columns(self, listed: list[dict[str, str]]) -> dict[str, NDArray[Any]]:
        return {item["name"]: self._column(item) for item in listed}

    def _column(self, item: dict[str, str]) -> NDArray[Any]:
        if item["type"] == "text":
            return np.array(self.read_text(item["array"]), dtype=object)
        return self.read(item["array"])


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a prediction store.

    Attributes
    ----------
    start, stop
        First row and the row after the last.
    logits
        (b, C): float32, or the stored float16 with ``centred=True``; None if not asked for.
    centers
        (b,) float32, with ``centred=True`` only: what to add to ``logits``.
    features
        (b, D) float32, None if not asked for.
    labels
        (b,) int32.
    valid
        (b,) bool.
    """

    start: int
    stop: int
    logits: NDArray[Any] | None
    centers: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]


class PredictionStore(Store):
    """The outputs of one model for every image of one dataset, in the dataset's order."""

    @property
    def logits_kind(self) -> str:
        """``logits`` or ``log_probabilities``."""
        return str(self.details["logits_kind"])

    @property
    def has_logits(self) -> bool:
        """Whether logits are stored."""
        return self.has("logits")

    @property
    def has_features(self) -> bool:
        """Whether features are stored."""
        return self.has("features")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the further arrays that the store holds, as ``extract --arrays`` has them."""
        return tuple(part for part, arrays in parts_of(self.kind, self.array_names).items() if arrays)

    @property
    def n_classes(self) -> int | None:
        """C of the logits; None without logits."""
        return self.shape("logits")[1] if self.has_logits else None

    @property
    def feature_width(self) -> int | None:
        """D of the features; None without features."""
        return self.shape("features")[1] if self.has_features else None

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Labels of shape (n,); -1 for images without label."""
        labels: NDArray[np.int32] = self.read("labels")
        if problem := label_problem(labels, label_limit(self.dataset, self.n_classes)):
            raise CorruptStoreError(f"{self.title}: {problem}")
        return labels

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Mask of shape (n,); False for images without output."""
        valid: NDArray[np.bool_] = self.read("valid")
        if int(valid.sum()) != self.details["n_valid"]:
            raise CorruptStoreError(
                f"{self.title}: {int(valid.sum())} rows are valid, but its header says {self.details['n_valid']}"
            )
        return valid

    @cached_property
    def image_ids(self) -> list[str]:
        """Names of the images, n strings."""
        return self.read_text("image_id")

    @cached_property
    def metadata(self) -> dict[str, NDArray[Any]]:
        """Per-image columns by name: text as object arrays of str, int64, float64 or bool."""
        return self._columns(self.details["metadata"])

    _kept: dict[tuple[int, int], NDArray[np.float16]] | None = None

    def keep_logits(self, at_most: int) -> int:
        """Keep centred logits in memory once read; :meth:`release` drops them.

        Parameters
        ----------
        at_most
            Largest size of all rows in bytes; a larger store keeps nothing, and 0 drops kept rows.

        Returns
        -------
        int
            Size in bytes once all rows were read.
        """
        size = 2 * len(self) * (self.n_classes or 0)
        self._kept = {} if 0 < size <= at_most else None
        return 0 if self._kept is None else size

    def centred_logits(self, start: int = 0, stop: int | None = None) -> NDArray[np.float16]:
        """Return rows of centred logits as stored, (b, C) float16; the top kept class is exactly 0."""
        kept = self._kept
        if kept is None:
            return self.read("logits", start, stop)
        block = (start, len(self) if stop is None else min(stop, len(self)))
        if block not in kept:
            kept[block] = self.read("logits", start, stop)
        return kept[block]

    def logit_centers(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the centres of rows, (b,) float32."""
        return self._centers[start:stop]

    @cached_property
    def _centers(self) -> NDArray[np.float32]:
        return self.read("logit_center")

    def logits(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows of logits, decoded: (b, C) float32. NaN in invalid rows."""
        return decode(self.centred_logits(start, stop), self.logit_centers(start, stop))

    def features(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows of features, (b, D) float32. NaN in invalid rows."""
        return self.read("features", start, stop).astype(np.float32, copy=False)

    def blocks(
        self, rows: int = 8192, *, logits: bool = True, features: bool = False, centred: bool = False
    ) -> Iterator[Block]:
        """Iterate over the store in blocks of rows, so that memory stays bounded.

        Parameters
        ----------
        rows
            Rows per block; with a multiple of 1,024 every chunk is decoded once.
        logits, features
            Whether to read them.
        centred
            Return the logits as stored, with their centres.
        """
        if rows < 1:
            raise UserError(f"blocks of {rows} rows: at least 1")
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            values: NDArray[Any] | None = None
            if logits:
                values = self.centred_logits(start, stop) if centred else self.logits(start, stop)
            yield Block(
                start,
                stop,
                values,
                self.logit_centers(start, stop) if logits and centred else None,
                self.features(start, stop) if features else None,
                self.labels[start:stop],
                self.valid[start:stop],
            )
