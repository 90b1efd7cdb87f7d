"""What was computed before: rows of earlier runs, kept by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl

from analyze.results import RESULT_SCHEMA, ResultRow, conform, to_frame
from cache_schema.importing.tables import read_flat_parquet
from closerlook_common.errors import UserError
from closerlook_common.user_cache import replaced_whole

CELLS_VERSION = 2


def cell_key(**fields: Any) -> str:
    """Return the key of a cell: equal for equal inputs, version and options, and different otherwise."""
    text = json.dumps({"cells": CELLS_VERSION, **fields}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cells_path(results: Path, command: str = "metrics") -> Path:
    """Return where the cells of a command are kept: a hidden file next to its result table."""
    of = "" if command == "metrics" else f".{command}"
    return results.with_name(f".{results.stem}{of}.cells.parquet")


SAVE_SECONDS = 20.0
"""A run that is killed loses at most this much work, and the model it was at."""


class KeptCells:
    """The cells of a command, next to its table, saved now and then and at the end, also when the run is interrupted.

    Parameters
    ----------
    output
        The result table; None keeps nothing.
    command
        Name of the command.
    fresh
        Know nothing of earlier runs.
    """

    def __init__(self, output: Path | None, command: str, *, fresh: bool = False) -> None:
        path = None if output is None else cells_path(output, command)
        self.cells = Cells(None if fresh else path)
        self.cells.path = path
        self.keep: list[str] | None = None
        """Keys of a whole run: other cells are of stores or options that are gone, and are not saved."""
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cells.save(self.keep)

    def saving(self, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
        """Return a function that calls ``progress`` and saves the cells where that was long ago."""

        def on_model(model: str, done: int, total: int) -> None:
            progress(model, done, total)
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.cells.save()
                self._saved = time.monotonic()

        return on_model


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
        self._passing: set[str] = set()
        if path is not None and path.is_file():
            try:
                frame = read_flat_parquet(path)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
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

    def computed(self) -> dict[str, tuple[list[ResultRow], bool]]:
        """Return the cells that were put here, not read: key -> what ``put`` takes."""
        return {key: (rows, key not in self._passing) for key, rows in self._rows.items()}

    def put(self, key: str, rows: Sequence[ResultRow], lasting: bool = True) -> None:
        """Keep the rows of a cell.

        Parameters
        ----------
        key, rows
            The cell.
        lasting
            Whether ``save`` keeps it for later runs. A reason that is of the moment (a store that could not be read)
            is looked into again.
        """
        self._rows[key] = list(rows)
        if lasting:
            self._passing.discard(key)
        else:
            self._passing.add(key)

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
        wanted = [key for key in wanted if key not in self._passing]
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
        with replaced_whole(self.path) as part:
            pl.concat(parts).write_parquet(part, compression="zstd")
