"""The result table: one row a number, the one currency that every command of ``analyze`` reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cache_schema.errors import UserError
from cache_schema.records import ModelCard

RESULT_VERSION = 1

RESULT_SCHEMA: dict[str, pl.DataType] = {
    "model": pl.String(),
    "dataset": pl.String(),
    "metric": pl.String(),
    # the variant: which of several numbers of that name
    "id_dataset": pl.String(),
    "score": pl.String(),
    "calibrator": pl.String(),
    "subset": pl.String(),
    "factor": pl.String(),
    "head": pl.String(),
    "options": pl.String(),
    # the number
    "value": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "n": pl.Int64(),
    "direction": pl.String(),
    "metric_version": pl.Int64(),
    # where it came from, or why it is not there
    "reason": pl.String(),
    "store": pl.String(),
    "command": pl.String(),
    # of the cards, so that a table or a figure needs no cache
    "role": pl.String(),
    "group": pl.String(),
    "source": pl.String(),
    "family": pl.String(),
    "parameters": pl.Int64(),
    "input_size": pl.Int64(),
    "samples_seen": pl.Int64(),
}
"""Column -> polars type of the long table."""

VARIANT_COLUMNS = ("id_dataset", "score", "calibrator", "subset", "factor", "head", "options")
CARD_COLUMNS = ("role", "group", "source", "family", "parameters", "input_size", "samples_seen")


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One number with everything needed to trust it.

    Attributes
    ----------
    model, dataset, metric
        Ids of the cards and name of the metric (``top1``, ``ece``, ``auroc`` ...).
    id_dataset
        The in-distribution set of an OOD pair, or the set a calibrator was fitted on.
    score
        OOD score or detector (``msp``, ``mcm``, ``vim`` ...).
    calibrator
        ``temperature``, ``vector`` ...; empty for the model's own probabilities.
    subset
        Named rows (``all`` is written as the empty string; ``near``/``far`` for means over OOD sets).
    factor
        Visual factor or metadata value.
    head
        Prompt set of a zero-shot head; empty for a model's own head.
    options
        Canonical JSON of further options, sorted keys, empty where all are the defaults.
    value, low, high
        The number and its interval; None where there is none.
    n
        Rows the number rests on.
    direction
        ``higher``, ``lower`` (is better) or ``none``.
    metric_version
        Moves whenever the same store would give another value.
    reason
        Why there is no value; empty otherwise.
    store
        Digests of the stores it was computed from, comma-separated.
    command
        The command of ``analyze`` that wrote the row, and replaces it when it runs again.
    """

    model: str
    dataset: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    direction: str = "higher"
    metric_version: int = 1
    id_dataset: str = ""
    score: str = ""
    calibrator: str = ""
    subset: str = ""
    factor: str = ""
    head: str = ""
    options: str = ""
    reason: str = ""
    store: str = ""
    command: str = "metrics"
    role: str = ""
    group: str = "unknown"
    source: str = "unknown"
    family: str = "unknown"
    parameters: int | None = None
    input_size: int | None = None
    samples_seen: int | None = None


def card_cells(card: ModelCard) -> dict[str, Any]:
    """Return what a row tells of a model's card: ``CARD_COLUMNS`` but for the role, which is the dataset's."""
    return {name: getattr(card, name) for name in CARD_COLUMNS if name != "role"}


def store_digests(*digests: str) -> str:
    """Return the cell ``store`` of a number that was computed from the stores of these digests: their first 16 signs.

    Examples
    --------
    >>> store_digests("0123456789abcdef01", "f" * 64)
    '0123456789abcdef,ffffffffffffffff'
    """
    return ",".join(digest[:16] for digest in digests)


def to_frame(rows: Iterable[ResultRow]) -> pl.DataFrame:
    """Return rows as a long table with the columns of ``RESULT_SCHEMA``."""
    listed = list(rows)
    columns = {name: [getattr(row, name) for row in listed] for name in RESULT_SCHEMA}
    return pl.DataFrame(columns, schema=RESULT_SCHEMA)


def read_results(path: str | Path) -> pl.DataFrame:
    """Read a result table that ``analyze`` wrote.

    Raises
    ------
    UserError
        Where the file is missing, is no Parquet file, or lacks the table's columns.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no result table at {path}: make one with 'analyze metrics CACHE -o {path.name}'")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a result table (Parquet): {error}".splitlines()[0]) from error
    missing = [c for c in ("model", "dataset", "metric", "value") if c not in frame.columns]
    if missing:
        raise UserError(f"{path} is not a result table: it has no column {', '.join(missing)}")
    return conform(frame)


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with all result columns, in order, at their types; absent ones are empty."""
    return frame.select(
        pl.col(name).cast(kind) if name in frame.columns
        else pl.lit("" if kind == pl.String() else None).cast(kind).alias(name)
        for name, kind in RESULT_SCHEMA.items()
    )


def write_results(frame: pl.DataFrame, path: str | Path) -> Path:
    """Write a result table as Parquet, all at once (a killed writer leaves the old table)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.staged")
    conform(frame).write_parquet(staged, compression="zstd")
    staged.replace(path)
    return path


KEY_COLUMNS = ("model", "dataset", "metric", *VARIANT_COLUMNS)
"""What tells one number from another."""


def merge_results(frame: pl.DataFrame, path: str | Path, *, command: str) -> pl.DataFrame:
    """Put a command's rows into a result table: its earlier rows go, those of other commands stay.

    A number that another command has written already is not written a second time.

    Parameters
    ----------
    frame
        The command's rows.
    path
        The table; made where there is none.
    command
        Name of the command, put into the rows.

    Returns
    -------
    polars.DataFrame
        The whole table, as it is on disk now.
    """
    path = Path(path)
    own = conform(frame).with_columns(command=pl.lit(command))
    kept = read_results(path).filter(pl.col("command") != command) if path.is_file() else own.clear()
    whole = pl.concat([kept, own.join(kept, on=list(KEY_COLUMNS), how="anti")])
    write_results(whole, path)
    return whole
