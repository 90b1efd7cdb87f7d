"""The result table: one row a number, the one currency that every command of ``analyze`` reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analyze.results.csv_text import unguarded, write_csv
from cache_schema.format.model_names.lineages import card_lineage
from cache_schema.format.records import FORMER_GROUPS, ModelCard
from cache_schema.format.strict_json import parse_json
from cache_schema.importing.decimal_commas import with_decimal_commas
from cache_schema.importing.tables import check_csv, read_flat_parquet
from cache_schema.reading.places.addresses import Address, is_address
from closerlook_common.console.waiting import waiting
from closerlook_common.csv_files import first_line, separator_of
from closerlook_common.errors import UserError
from closerlook_common.input_files import require_regular_file
from closerlook_common.redaction import redact
from closerlook_common.user_cache import replaced_whole

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
    "interval": pl.String(),
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
    "lineage": pl.String(),
    # classes that compete on the dataset: at chance one of them is right
    "classes": pl.Int64(),
}
"""Column -> polars type of the long table."""

VARIANT_COLUMNS = ("id_dataset", "score", "calibrator", "subset", "factor", "head", "options")
CARD_COLUMNS = ("role", "group", "source", "family", "parameters", "input_size", "samples_seen", "lineage")


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
    interval
        How the interval was made, with its level (``wilson 95 %``), or why there is none (``none: ...``).
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
    lineage
        Of the model's card: what near-copies share.
    classes
        Classes that compete on the dataset; None where the row does not say.
    """

    model: str
    dataset: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
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
    lineage: str = ""
    classes: int | None = None


def card_cells(card: ModelCard) -> dict[str, Any]:
    """Return what a row holds of a model's card: ``CARD_COLUMNS`` without the role, which is the dataset's."""
    cells = {name: getattr(card, name) for name in CARD_COLUMNS if name != "role"}
    return cells | {"lineage": card_lineage(card)}


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
    """Read a result table that ``analyze`` wrote, as Parquet or as CSV.

    Raises
    ------
    UserError
        Where the file is missing, is neither Parquet nor CSV, or lacks the table's columns.
    """
    if is_address(str(path)):
        raise UserError(f"{Address(str(path)).title}: a result table is a file on this machine, not an address")
    path = Path(path)
    try:
        require_regular_file(path, "result table")
    except FileNotFoundError:
        raise UserError(f"no result table at {path}: make one with 'analyze metrics CACHE -o {path.name}'") from None
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        with waiting(f"reading {path}"):
            if is_parquet or path.suffix.lower() != ".csv":
                frame = read_flat_parquet(path, RESULT_SCHEMA)
            else:
                separator = separator_of(first_line(path), RESULT_SCHEMA)
                check_csv(path, separator)
                frame = unguarded(pl.read_csv(path, separator=separator, infer_schema=False, glob=False))
                frame = with_decimal_commas(frame, path, separator, ("value", "low", "high"))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise UserError(f"{path} is not a result table (Parquet or CSV): {error}".splitlines()[0]) from error
    return checked_frame(frame, str(path))


def checked_frame(frame: Any, name: str = "the frame") -> pl.DataFrame:
    """Return a table of polars or pandas as a result table.

    Parameters
    ----------
    frame
        With at least the columns model, dataset, metric and value.
    name
        What to call it in messages.

    Raises
    ------
    UserError
        Where it is not a table, lacks a column, or has a cell that its column cannot hold.
    """
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if not isinstance(frame, pl.DataFrame):
        frame = _of_pandas(frame, name)
    missing = [c for c in ("model", "dataset", "metric", "value") if c not in frame.columns]
    if missing:
        raise UserError(f"{name} is not a result table: it has no column {', '.join(missing)}")
    blank = pl.String()
    text = [
        column for column, kind in frame.schema.items() if kind == blank and RESULT_SCHEMA.get(column, blank) != blank
    ]
    numbers = pl.col(text).str.strip_chars().replace(["", "None", "<NA>"], None).cast(pl.Float64())
    try:
        frame = frame.with_columns(numbers)
        floats = [column for column, kind in frame.schema.items() if kind.is_float() and column != "value"]
        frame = frame.with_columns(pl.col(floats).fill_nan(None))
        checked = conform(frame).with_columns(pl.col(pl.String).fill_null(""))
        checked = checked.with_columns(pl.col("group").replace(dict(FORMER_GROUPS)))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{name} is not a result table: {str(error).splitlines()[0]}") from error
    _check_options(checked["options"], name)
    return checked


def _check_options(options: pl.Series, name: str) -> None:
    for text in options.unique():
        try:
            if text and not isinstance(parse_json(text), dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise UserError(
                f"{name} is not a result table: its options {text[:40]!r} are not JSON of names and values ({error})"
            ) from None


def _of_pandas(frame: Any, name: str) -> pl.DataFrame:
    """Return a pandas frame as one of polars; pyarrow, which polars' own way needs, is not asked for."""
    if not (hasattr(frame, "columns") and hasattr(frame, "itertuples")):
        raise UserError(f"{name} is a {type(frame).__name__}: give a path, or a data frame of polars or pandas")
    columns = {}
    for column in frame.columns:
        kind = RESULT_SCHEMA.get(str(column))
        if kind is None:
            continue
        # What is missing is unequal to itself (NaN, NaT) or has no truth value (pandas.NA).
        values = [None if value is None or str(value) in ("nan", "NaT", "<NA>") else value for value in frame[column]]
        if kind == pl.String():
            columns[str(column)] = pl.Series(values, dtype=kind, strict=False)
        else:
            numbers = [None if value is None else float(value) for value in values]
            columns[str(column)] = pl.Series(numbers, dtype=pl.Float64())
    return pl.DataFrame(columns)


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with all result columns, in order, at their types; absent ones are empty."""
    return frame.select(
        pl.col(name).cast(kind)
        if name in frame.columns
        else pl.lit("" if kind == pl.String() else None).cast(kind).alias(name)
        for name, kind in RESULT_SCHEMA.items()
    )


def write_results(frame: pl.DataFrame, path: str | Path) -> Path:
    """Write a result table, all at once (a killed writer leaves the old table): Parquet, or CSV for names in .csv."""
    path = Path(path)
    if path.exists():
        require_regular_file(path, "result table")
    with replaced_whole(path) as part:
        write_rows(frame, part, path)
    return path


def write_rows(frame: pl.DataFrame, part: Path, path: Path) -> None:
    """Write the rows of a result table to a temporary path, in the format that the final name implies."""
    rows = _without_secrets(conform(frame))
    if path.suffix.lower() == ".csv":
        write_csv(rows, part)
    else:
        rows.write_parquet(part, compression="zstd")


def _without_secrets(frame: pl.DataFrame) -> pl.DataFrame:
    """Redact reasons, which may contain an address as it was typed in."""
    reasons = {text: redact(text) for text in frame["reason"].unique().drop_nulls() if text}
    changed = {text: new for text, new in reasons.items() if new != text}
    return frame.with_columns(pl.col("reason").replace(changed)) if changed else frame


KEY_COLUMNS = ("model", "dataset", "metric", *VARIANT_COLUMNS)
"""What distinguishes one number from another."""
