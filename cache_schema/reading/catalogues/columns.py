"""A catalogue as columns, and as bytes: numbers, digests, texts, and JSON documents that many rows share.

The bytes are one line of JSON (version, cache, lengths of the parts), the parts, and the SHA-256 of all before it.
Nothing is compressed, so that a file of any content costs no more than its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.header_rules import check_card, check_details
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.strict_json import parse_json
from cache_schema.reading.catalogues.rows import END, KIND_NAMES, LONGEST_DOCUMENT, SHARED, TEXTS, Row
from cache_schema.reading.places.base import Signature

CATALOGUE_VERSION = 1
_MAGIC = b"closerlook catalogue\n"
_DIGEST_BYTES = 32
_LONGEST_LINE = 1 << 16
_NUMBERS = ("size", "changed", "status_changed", "inode", "kind", "rows", *SHARED)
_KIND, _ROWS, _FIRST_SHARED = 4, 5, 6
_PARTS = ("numbers", "digests", "shared", *TEXTS)


def encode(rows: Sequence[Row], about: dict[str, str]) -> bytes:
    """Return a catalogue of some rows.

    Parameters
    ----------
    rows
        One for each path.
    about
        Which cache and which reader of headers it belongs to; compared when it is read.
    """
    documents: dict[str, int] = {}
    numbers = np.array(
        [
            (
                *row.signature,
                KIND_NAMES.index(row.kind),
                row.rows,
                *(documents.setdefault(document, len(documents)) for document in row.shared),
            )
            for row in rows
        ],
        dtype="<i8",
    )
    columns = zip(*(row.texts for row in rows), strict=True)
    parts = [
        numbers.tobytes(),
        bytes.fromhex("".join(row.identity + row.digest for row in rows)),
        *(END.join(column).encode() for column in (list(documents), *columns)),
    ]
    line = {"version": CATALOGUE_VERSION, "rows": len(rows), "about": about, "parts": [len(part) for part in parts]}
    raw = b"".join([_MAGIC, json.dumps(line).encode(), b"\n", *parts])
    return raw + hashlib.sha256(raw).digest()


def parse(raw: bytes, about: dict[str, str]) -> Columns:
    """Return the catalogue that some bytes hold.

    Raises
    ------
    ValueError
        They are damaged, of another version, of another cache, or hold values that no header has.
    """
    view = memoryview(raw)[:-_DIGEST_BYTES]
    if raw[: len(_MAGIC)] != _MAGIC or hashlib.sha256(view).digest() != raw[-_DIGEST_BYTES:]:
        raise ValueError("its bytes were changed")
    start = raw.find(b"\n", len(_MAGIC), _LONGEST_LINE) + 1
    line = parse_json(raw[len(_MAGIC) : max(start, len(_MAGIC))])
    if not isinstance(line, dict) or line.get("version") != CATALOGUE_VERSION or line.get("about") != about:
        raise ValueError("it is of another version or another cache")
    lengths, rows = line.get("parts"), line.get("rows")
    if type(rows) is not int or rows < 1:
        raise ValueError("it has no rows")
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("its parts have no lengths")
    if len(lengths) != len(_PARTS) or start + sum(lengths) != len(view):
        raise ValueError("its parts do not fit its size")
    parts = {}
    for name, length in zip(_PARTS, lengths, strict=True):
        parts[name] = view[start : start + length]
        start += length
    return Columns(rows, parts)


class Columns:
    """The columns of a catalogue.

    Parameters
    ----------
    rows
        How many.
    parts
        Name of a part -> its bytes.

    Attributes
    ----------
    row_of
        Path of a store below its cache -> its row.
    signatures
        Of the files that the headers are in, by row.
    kinds
        Of the stores, by row.

    Raises
    ------
    ValueError
        The parts do not fit each other, or hold values that no header has.
    """

    def __init__(self, rows: int, parts: dict[str, memoryview]) -> None:
        width = len(_NUMBERS)
        if len(parts["numbers"]) != rows * width * 8 or len(parts["digests"]) != rows * 2 * _DIGEST_BYTES:
            raise ValueError("its parts do not fit its rows")
        self._numbers: NDArray[np.int64] = np.frombuffer(parts["numbers"], "<i8").reshape(rows, width)
        self._digests = parts["digests"]
        self._parts = {name: parts[name] for name in TEXTS}
        self._texts: dict[str, list[str]] = {}
        self._rows = rows
        texts = [] if not parts["shared"] else str(parts["shared"], "utf-8").split(END)
        self._check_numbers(len(texts))
        self._check_texts()
        self._check_documents(texts)
        paths = self.texts("path")
        self.row_of = dict(zip(paths, range(rows), strict=True))
        if len(self.row_of) != rows:
            raise ValueError("it holds a path twice")
        self.signatures: list[Signature] = list(zip(*self._numbers[:, :4].T.tolist(), strict=True))
        self.kinds = [KIND_NAMES[kind] for kind in self._numbers[:, _KIND].tolist()]

    def _check_numbers(self, documents: int) -> None:
        kinds, shared = self._numbers[:, _KIND], self._numbers[:, _FIRST_SHARED:]
        if self._numbers.min() < 0 or kinds.max() >= len(KIND_NAMES) or shared.max() >= documents:
            raise ValueError("it holds numbers that are out of range")
        if self._numbers[:, _ROWS].min() < 1:
            raise ValueError("it holds a store without rows")

    def _check_texts(self) -> None:
        for name in TEXTS:
            raw = bytes(self._parts[name])
            raw.decode()
            if raw.count(END.encode()) != self._rows - 1:
                raise ValueError(f"it does not hold one {name} for each row")

    def _check_documents(self, texts: list[str]) -> None:
        """Parse the documents, and check each as a part of a header of the kind that it is used for."""
        if texts and max(map(len, texts)) > LONGEST_DOCUMENT:
            raise ValueError("it holds a document that is too long")
        self._documents: list[Any] = [parse_json(text) for text in texts]
        self._texts_of_documents = texts
        self._models: dict[int, ModelCard] = {}
        self._datasets: dict[int, DatasetCard | None] = {}
        self._arrays: dict[int, tuple[str, ...]] = {}
        used = [self._numbers[:, _FIRST_SHARED + i] for i in range(len(SHARED))]
        for i in np.unique(used[0]).tolist():
            self._models[i] = check_card(self._documents[i], ModelCard, "model")
        for kind, i in self._by_kind(used[1]):
            document = self._documents[i]
            if (document is None) != (KIND_NAMES[kind] == "head"):
                raise ValueError("dataset: it is missing, or of a head")
            self._datasets[i] = None if document is None else check_card(document, DatasetCard, "dataset")
        for kind, i in self._by_kind(used[2]):
            check_details(KIND_NAMES[kind], self._documents[i])
        for i in np.unique(used[3]).tolist():
            names = self._documents[i]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("arrays: it is not a list of names")
            self._arrays[i] = tuple(names)

    def _by_kind(self, used: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Return the pairs of a kind and a document that occur."""
        pairs = np.unique(self._numbers[:, _KIND] * len(self._documents) + used)
        return [divmod(pair, len(self._documents)) for pair in pairs.tolist()]

    def texts(self, name: str) -> list[str]:
        """Return a column of ``TEXTS``."""
        if name not in self._texts:
            self._texts[name] = str(self._parts[name], "utf-8").split(END)
        return self._texts[name]

    def rows(self, row: int) -> int:
        """Return the number of rows of a row's store."""
        return int(self._numbers[row, _ROWS])

    def identity(self, row: int) -> str:
        """Return the identity of a row's store."""
        return self._hex(2 * row)

    def digest(self, row: int) -> str:
        """Return the digest of a row's store."""
        return self._hex(2 * row + 1)

    def _hex(self, at: int) -> str:
        return bytes(self._digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES]).hex()

    def _shared(self, row: int, name: str) -> int:
        return int(self._numbers[row, _FIRST_SHARED + SHARED.index(name)])

    def model(self, row: int) -> ModelCard:
        """Return the model's card of a row."""
        return self._models[self._shared(row, "model")]

    def dataset(self, row: int) -> DatasetCard | None:
        """Return the dataset's card of a row, None for a head."""
        return self._datasets[self._shared(row, "dataset")]

    def details(self, row: int) -> dict[str, Any]:
        """Return the details of a row."""
        details: dict[str, Any] = self._documents[self._shared(row, "details")]
        return details

    def arrays(self, row: int) -> tuple[str, ...]:
        """Return the names of the arrays of a row."""
        return self._arrays[self._shared(row, "arrays")]

    def row(self, row: int) -> Row:
        """Return a row as it was encoded."""
        return Row(
            self.signatures[row],
            self.kinds[row],
            self.rows(row),
            self.identity(row),
            self.digest(row),
            tuple(self._texts_of_documents[self._shared(row, name)] for name in SHARED),
            tuple(self.texts(name)[row] for name in TEXTS),
        )
