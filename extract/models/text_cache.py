"""Text embeddings on disk, by weights, tokenizer and the very texts: several prompt sets share one run of a
text tower.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from cache_schema.user_cache import user_cache, write_whole

LIMIT_VARIABLE = "CLOSERLOOK_TEXT_CACHE_GB"
DEFAULT_LIMIT_GB = 4.0
"""80 templates of 1,000 classes take 0.2 to 0.4 GB a model; what was used longest ago goes first."""

_VERSION = 1


def _limit_bytes() -> int:
    stated = os.environ.get(LIMIT_VARIABLE, "")
    try:
        gigabytes = float(stated) if stated else DEFAULT_LIMIT_GB
    except ValueError:
        raise UserError(f"{LIMIT_VARIABLE}={stated} is not a number of gigabytes") from None
    return int(gigabytes * 1e9)


class TextCache:
    """Embeddings of one text tower.

    Parameters
    ----------
    weights_digest
        SHA-256 of the weight file; empty for a tower that cannot be told apart (random weights): nothing is
        kept.
    tower
        Everything else that changes an embedding: config and tokenizer, as text.
    """

    def __init__(self, weights_digest: str, tower: str) -> None:
        self.folder = user_cache() / "texts"
        self._kept = bool(weights_digest)
        self._tower = [_VERSION, weights_digest, tower]

    def _file(self, texts: Sequence[str]) -> Path:
        key = json.dumps([*self._tower, list(texts)], ensure_ascii=False, separators=(",", ":"))
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:48]}.npy"

    def __call__(
        self, texts: Sequence[str], encode: Callable[[list[str]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return (m, D) unit-norm embeddings, from disk or by ``encode``; equal texts get equal rows."""
        distinct = list(dict.fromkeys(texts))
        position = {text: row for row, text in enumerate(distinct)}
        file = self._file(distinct)
        rows = _read(file, len(distinct)) if self._kept else None
        if rows is None:
            rows = encode(distinct)
            if self._kept:
                self._write(file, rows)
        return rows[[position[text] for text in texts]]

    def _write(self, file: Path, rows: NDArray[np.float32]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        # A full disk costs the next run the same work, nothing else.
        with contextlib.suppress(OSError):
            write_whole(file, buffer.getvalue())

    def trim(self) -> None:
        """Remove what was used longest ago until the folder is within its limit."""
        with contextlib.suppress(OSError):
            files = sorted(
                ((path.stat(), path) for path in self.folder.glob("*.npy")), key=lambda item: item[0].st_mtime
            )
            excess = sum(status.st_size for status, _ in files) - _limit_bytes()
            for status, path in files:
                if excess <= 0:
                    return
                path.unlink(missing_ok=True)
                excess -= status.st_size


def _read(file: Path, n: int) -> NDArray[np.float32] | None:
    try:
        rows = np.load(file, allow_pickle=False)
        os.utime(file)
    except (OSError, ValueError, EOFError):
        return None
    usable = rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == n and bool(np.isfinite(rows).all())
    return rows if usable else None
