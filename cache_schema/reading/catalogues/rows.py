"""One row of a catalogue: the brief of a header, and the state of the file that the header is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from cache_schema.format.briefs import RECORD_TEXTS
from cache_schema.format.schema import KINDS
from cache_schema.reading.places.base import Signature

KIND_NAMES = tuple(KINDS)
END = "\0"
"""Separates texts in a catalogue; a text that holds it is not kept."""
LONGEST_DOCUMENT = 1 << 20
"""Longest card or details that are kept, in characters."""
SHARED = ("model", "dataset", "details", "arrays")
"""Columns of JSON documents; many rows share one."""
TEXTS = ("path", "written", *RECORD_TEXTS)
"""Columns of texts."""
_LARGEST = 2**63


class Row(NamedTuple):
    """A row.

    Attributes
    ----------
    signature
        Of the file that the header is in.
    kind, rows, identity, digest
        As in the header.
    shared
        JSON of ``SHARED``.
    texts
        Of ``TEXTS``.
    """

    signature: Signature
    kind: str
    rows: int
    identity: str
    digest: str
    shared: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The path of the store below its cache."""
        return self.texts[0]


def row_of(path: str, signature: Signature, header: Mapping[str, Any]) -> Row | None:
    """Return the row of a header that was read and checked; None if it has values that a catalogue cannot hold.

    Parameters
    ----------
    path
        Of the store below its cache.
    signature
        Of the file that the header is in, from before it was read.
    header
        The header.
    """
    seal, record = header["seal"], header["record"]
    recorded = [record.get(name, "") for name in RECORD_TEXTS]
    if not all(isinstance(value, str) for value in recorded) or not all(0 <= part < _LARGEST for part in signature):
        return None
    texts = (path, seal["written"], *recorded)
    try:
        if END in "".join(texts) or not "".join(texts).encode():
            return None
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return None
    documents = (header["model"], header["dataset"], header["details"], list(seal["arrays"]))
    shared = tuple(json.dumps(document, separators=(",", ":")) for document in documents)
    if max(map(len, shared)) > LONGEST_DOCUMENT:
        return None
    return Row(signature, header["kind"], seal["n"], header["identity"], seal["digest"], shared, texts)
