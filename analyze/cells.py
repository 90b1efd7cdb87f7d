"""What was computed before: rows of earlier runs, kept by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analyze.results import RESULT_SCHEMA, ResultRow, conform, to_frame
from cache_schema.errors import UserError

CELLS_VERSION = 1


def cell_key(**fields: Any) -> str:
    """Return the key of a cell: equal for equal inputs, version and options, and different otherwise."""
    text = json.dumps({"cells": CELLS_VERSION, **fields}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cells_path(results: Path) -> Path:
    """Return where the cells of a result table are kept: a hidden file beside it."""
    return results.with_name(f".{results.stem}.cells.parquet")


class Cells:
    """Rows by cell; a cell without rows is remembered too.

    Parameters
    ----------
    path
        Of the cells' file; None keeps them in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._frames: dict[str, pl.DataFrame] = {}
        if path is not None and path.is_file():
            try:
                frame = pl.read_parquet(path)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise UserError(
                    f"{path} cannot be read ({error}); delete it, everything is then computed anew"
                ) from error
            if {"cell", "empty", *RESULT_SCHEMA} <= set(frame.columns):
                for (key,), part in frame.partition_by("cell", as_dict=True).items():
                    self._frames[str(key)] = conform(part.filter(~pl.col("empty")))
        self.before = len(self._frames)

    def __contains__(self, key: str) -> bool:
        return key in self._frames

    def get(self, key: str) -> pl.DataFrame:
        """Return the rows of a cell."""
        return self._frames[key]

    def put(self, key: str, rows: Sequence[ResultRow]) -> None:
        """Keep the rows of a cell."""
        self._frames[key] = to_frame(rows)

    def table(self, keys: Sequence[str]) -> pl.DataFrame:
        """Return the rows of some cells as one result table."""
        frames = [self._frames[key] for key in keys if key in self._frames]
        return pl.concat(frames) if frames else to_frame([])

    def save(self, keep: Mapping[str, Any] | Sequence[str] | None = None) -> None:
        """Write the cells, all at once; only those that are named, if any are."""
        if self.path is None:
            return
        parts = []
        for key in self._frames if keep is None else [k for k in keep if k in self._frames]:
            frame = self._frames[key]
            empty = frame.is_empty()
            if empty:
                frame = to_frame([ResultRow(model="", dataset="", metric="")])
            parts.append(frame.with_columns(pl.lit(key).alias("cell"), pl.lit(empty).alias("empty")))
        if not parts:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.path.with_name(f"{self.path.name}.staged")
        pl.concat(parts).write_parquet(staged, compression="zstd")
        staged.replace(self.path)
