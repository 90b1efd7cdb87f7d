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

from closerlook_common.user_cache import gigabytes, kept_folder, write_whole

LIMIT_VARIABLE = "CLOSERLOOK_TEXT_CACHE_GB"
DEFAULT_LIMIT_GB = 4.0
"""80 templates of 1,000 classes take 0.2 to 0.4 GB a model; what was used longest ago goes first."""

_VERSION = 1


def _limit_bytes() -> int:
    return gigabytes(LIMIT_VARIABLE, DEFAULT_LIMIT_GB)


class TextCache:
    """Embeddings of one text tower.

    Parameters
    ----------
    weights_digest
        SHA-256 of the weight file; empty for a tower without an identity (random weights): nothing is
        kept.
    tower
        Everything else that changes an embedding: config and tokenizer, as text.
    """

    def __init__(self, weights_digest: str, tower: str) -> None:
        self.folder = kept_folder("texts") if weights_digest else None
        self._tower = [_VERSION, weights_digest, tower]

    def _file(self, texts: Sequence[str]) -> Path | None:
        if self.folder is None:
            return None
        key = json.dumps([*self._tower, list(texts)], ensure_ascii=False, separators=(",", ":"))
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:48]}.npy"

    def __call__(self, texts: Sequence[str], encode: Callable[[list[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return (m, D) unit-norm embeddings, from disk or by ``encode``; equal texts get equal rows."""
        distinct = list(dict.fromkeys(texts))
        position = {text: row for row, text in enumerate(distinct)}
        file = self._file(distinct)
        rows = None if file is None else _read(file, len(distinct))
        if rows is None:
            rows = encode(distinct)
            if file is not None:
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
        if self.folder is None:
            return
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
