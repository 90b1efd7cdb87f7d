"""Seals and digests, which prove that nothing in a store is missing or changed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.header_rules import check_rules
from cache_schema.format.identities import canonical_json
from cache_schema.format.schema import FORMAT, KINDS, MAX_HEADER_BYTES, SCHEMA_VERSION
from closerlook_common.errors import CorruptStoreError, NewerSchemaError, UnsealedStoreError, UserError

BLOCK = 1 << 20
DIGEST_KEY = "file_digest"
_BLANK = "0" * 64


class ArrayDigest:
    """The digest of an array's content, updated block by block of rows.

    SHA-256 over one line of JSON with dtype and shape, then the elements in C order, little-endian. Chunks and
    compression do not matter, so every backend gives the same digest.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._hash = hashlib.sha256(json.dumps([dtype.name, list(shape)]).encode() + b"\n")

    def update(self, block: NDArray[Any]) -> None:
        """Add the next rows."""
        if block.size:
            little = block if sys.byteorder == "little" else block.astype(block.dtype.newbyteorder("<"))
            self._hash.update(np.ascontiguousarray(little).data)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return self._hash.hexdigest()


class FileDigest(NamedTuple):
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


def digest_file(path: Path, stop: int | None = None) -> FileDigest:
    """Return size and SHA-256 of a file, or of its first ``stop`` bytes."""
    total, running = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK if stop is None else min(BLOCK, stop - total)):
            running.update(block)
            total += len(block)
    return FileDigest(total, running.hexdigest())


def store_digest(header: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest of a store's content: kind, details and arrays, without cards and record."""
    content = {key: header[key] for key in ("format", "schema_version", "kind", "details")}
    return hashlib.sha256(canonical_json({**content, "arrays": arrays}).encode()).hexdigest()


def dump_with_digest(document: Mapping[str, Any]) -> bytes:
    """Serialise a document that holds its own digest.

    Parameters
    ----------
    document
        JSON-ready, with ``"file_digest": None`` in it exactly once.

    Returns
    -------
    bytes
        The JSON with the SHA-256 in that place, computed with 64 zeros there.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    before, key, after = text.rpartition(f'"{DIGEST_KEY}":null')
    if not key:
        raise ValueError(f"the document has no {DIGEST_KEY!r}")
    blank = f'{before}"{DIGEST_KEY}":"{_BLANK}"{after}'
    digest = hashlib.sha256(blank.encode()).hexdigest()
    return f'{before}"{DIGEST_KEY}":"{digest}"{after}'.encode()


def verify_digest(raw: bytes, name: object) -> None:
    """Raise CorruptStoreError if bytes are not those that :func:`dump_with_digest` wrote.

    Parameters
    ----------
    raw
        The bytes of the file.
    name
        What to call it in an error.
    """
    lead = f'"{DIGEST_KEY}":"'.encode()
    start = raw.rfind(lead) + len(lead)
    blank = raw[:start] + _BLANK.encode() + raw[start + 64 :]
    if hashlib.sha256(blank).hexdigest().encode() != raw[start : start + 64]:
        raise CorruptStoreError(f"{name}: its bytes are not those that were sealed; delete it and write it again")


def check_header(header: object, path: object) -> dict[str, Any]:
    """Return a header that this version can read; raise a one-line error otherwise.

    Parameters
    ----------
    header
        Value that the backend found as the header.
    path
        Of the store, for the error.
    """
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UnsealedStoreError(f"{path} is not a store of {FORMAT}, or its writer was stopped before its header")
    version = header.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CorruptStoreError(f"{path} names schema version {version!r:.80}, which does not exist")
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} was written with schema version {version}, this closerlook reads up to {SCHEMA_VERSION};"
            " install a newer closerlook"
        )
    if not header.get("seal"):
        raise UnsealedStoreError(f"{path} was never sealed: its writer was stopped; delete it and write it again")
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CorruptStoreError(f"{path} is a store of kind {kind!r:.80}, which its schema version does not have")
    try:
        check_rules(header)
    except ValueError as error:
        raise misfit(path, error) from None
    return header


def check_header_size(size: int, path: Path) -> None:
    """Raise UserError if a header is too large to be read again."""
    if size > MAX_HEADER_BYTES:
        raise UserError(
            f"{path.name} cannot be sealed: its header (cards, class names, record) has {size} bytes,"
            f" {MAX_HEADER_BYTES} at most are read; shorten the names or the record"
        )


def misfit(path: object, problem: object) -> CorruptStoreError:
    """Return the error for a store that breaks a rule of the format, as one line."""
    text = "".join(c if c.isprintable() else "?" for c in str(problem))  # the problem may quote the store
    return CorruptStoreError(f"{path} does not fit the store format: {text}; get it again, or write it again")
