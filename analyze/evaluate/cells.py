"""What was computed before: rows of earlier runs, kept by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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
        # As they were read, and as they were computed since: a frame a cell would cost more than the numbers.
        self._frames: dict[str, pl.DataFrame] = {}
        self._rows: dict[str, list[ResultRow]] = {}
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

    def __contains__(self, key: str) -> bool:
        return key in self._rows or key in self._frames

    def keys(self) -> frozenset[str]:
        """Return the keys of all cells."""
        return frozenset(self._rows) | frozenset(self._frames)

    def computed(self) -> dict[str, list[ResultRow]]:
        """Return the cells that were put here, not read, by key."""
        return dict(self._rows)

    def put(self, key: str, rows: Sequence[ResultRow]) -> None:
        """Keep the rows of a cell."""
        self._rows[key] = list(rows)

    def table(self, keys: Sequence[str]) -> pl.DataFrame:
        """Return the rows of some cells as one result table, in that order."""
        frames: list[pl.DataFrame] = []
        pending: list[ResultRow] = []
        for key in keys:
            if key in self._rows:
                pending += self._rows[key]
            elif key in self._frames:
                if pending:
                    frames.append(to_frame(pending))
                    pending = []
                frames.append(self._frames[key])
        if pending or not frames:
            frames.append(to_frame(pending))
        return pl.concat(frames)

    def save(self, keep: Sequence[str] | None = None) -> None:
        """Write the cells, all at once; only those that are named, if any are."""
        if self.path is None:
            return
        rows = dict(self._rows)  # other threads may add to it meanwhile
        wanted = [*rows, *(key for key in self._frames if key not in rows)] if keep is None else list(keep)
        parts = []
        blank = [ResultRow(model="", dataset="", metric="")]
        computed = [(key, row) for key in wanted if key in rows for row in rows[key] or blank]
        if computed:
            frame = to_frame([row for _, row in computed])
            names = pl.Series("cell", [key for key, _ in computed], dtype=pl.String)
            parts.append(frame.with_columns(names, (pl.col("metric") == "").alias("empty")))
        for key in wanted:
            if key not in rows and key in self._frames:
                frame = self._frames[key]
                frame = to_frame(blank) if frame.is_empty() else frame
                parts.append(frame.with_columns(pl.lit(key).alias("cell"), (pl.col("metric") == "").alias("empty")))
        if not parts:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.path.with_name(f"{self.path.name}.staged")
        pl.concat(parts).write_parquet(staged, compression="zstd")
        staged.replace(self.path)
