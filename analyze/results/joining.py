"""Rows of several commands in one result table: each command's own rows, and which of two rows for one number is shown.

What a table shows does not depend on the order of the commands. A number is shown rather than a reason why there is
none, and of two numbers that of the command named first in ``COMMANDS``. The other row is not lost: it is kept in a
hidden file next to the table, and shown again when the command whose row replaced it no longer has one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import polars as pl

from analyze.results.table import KEY_COLUMNS, RESULT_SCHEMA, conform, read_results, to_frame, write_rows
from cache_schema.importing.tables import read_flat_parquet
from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.user_cache import locked, replaced_whole

COMMANDS = ("metrics", "factors", "prompts", "ood", "retrieval", "import-results")
"""Commands that write rows, in the order in which their numbers are preferred."""

NUMBER = ("model", "dataset", "metric", "subset", "calibrator", "factor")
"""What a published number and a measured one have in common where they are the same."""

FITTED_ON = "fit"
"""Option of a detector's number that its reason lacks: only what was fitted says on what."""


class Merged(NamedTuple):
    """A result table after a command's rows were put into it.

    Attributes
    ----------
    table
        As it is on disk now.
    dropped
        Rows of an earlier run of the command that this one replaced by nothing.
    """

    table: pl.DataFrame
    dropped: int


def hidden_path(results: Path) -> Path:
    """Return where the rows are kept that a table does not show: a hidden file next to it."""
    return results.with_name(f".{results.stem}.others.parquet")


def all_rows(path: Path) -> pl.DataFrame:
    """Return the rows of a table, and those kept next to it that it does not show."""
    return pl.concat([read_results(path), conform(_hidden_rows(path))])


def _hidden_rows(path: Path) -> pl.DataFrame:
    """Return the rows that are kept next to a table, with the digest of the table in column ``beside``."""
    none = to_frame([]).with_columns(beside=pl.lit("", dtype=pl.String))
    beside = hidden_path(path)
    if not (path.is_file() and beside.is_file()):
        return none
    try:
        hidden = read_flat_parquet(beside)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise UserError(f"{beside} cannot be read ({error}); delete it and run the commands again") from error
    # Rows kept next to another table that had this name are not rows of this one.
    return hidden.filter(pl.col("beside") == _digest(path)) if "beside" in hidden.columns else none


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_all(rows: pl.DataFrame, path: str | Path) -> pl.DataFrame:
    """Write rows of several commands; returns those that the table shows."""
    path = Path(path)
    shown, hidden = resolved(conform(rows))
    with replaced_whole(path) as part:
        write_rows(shown, part, path)
        # Until the table is replaced, the present one needs its rows: a writer may be killed in between.
        before = _hidden_rows(path)
        new = hidden.with_columns(beside=pl.lit(_digest(part)))
        _write_hidden(pl.concat([before.select(new.columns), new]), path)
    if not before.is_empty():
        _write_hidden(new, path)
    return shown


def _write_hidden(rows: pl.DataFrame, path: Path) -> None:
    beside = hidden_path(path)
    if rows.is_empty():
        beside.unlink(missing_ok=True)
        return
    with replaced_whole(beside) as part:
        rows.write_parquet(part, compression="zstd")


def resolved(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that a table shows, one a number, and the others."""
    places = {name: place for place, name in enumerate(COMMANDS)}
    numbered = rows.with_row_index("place").with_columns(
        has=pl.col("value").is_not_null(),
        rank=pl.col("command").replace_strict(places, default=len(places), return_dtype=pl.Int64),
        asked=_without_fit(rows["options"]),
        published=pl.col("command") == "import-results",
    )
    # A reason is out of date where the same question has a number, fitted on whatever it needed.
    question = [*(name for name in KEY_COLUMNS if name != "options"), "asked", "command"]
    outdated = ~pl.col("has") & pl.col("has").any().over(question)
    # A published number without a prompt set of its own is the one that was measured under some prompt set.
    measured = pl.col("published") & (pl.col("head") == "") & (pl.col("has") & ~pl.col("published")).any().over(NUMBER)
    numbered = numbered.with_columns(hidden=outdated | measured)
    order = ["hidden", "has", "rank", "command", "place"]
    best = numbered.sort(order, descending=[False, True, False, False, False])
    shown = best.unique(KEY_COLUMNS, keep="first", maintain_order=True).filter(~pl.col("hidden")).sort("place")
    others = numbered.join(shown.select("place"), on="place", how="anti")
    return shown.select(*RESULT_SCHEMA), others.select(*RESULT_SCHEMA)


def _without_fit(options: pl.Series) -> pl.Series:
    """Return options without what a detector was fitted on."""
    plain = {text: text for text in options.unique()}
    for text in plain:
        given = json.loads(text) if f'"{FITTED_ON}"' in text else {}
        if FITTED_ON in given:
            del given[FITTED_ON]
            plain[text] = json.dumps(given, sort_keys=True, separators=(",", ":")) if given else ""
    return options.replace_strict(list(plain), list(plain.values()), return_dtype=pl.String)


def merge_results(frame: pl.DataFrame, path: str | Path, *, command: str, adds: bool = False) -> Merged:
    """Put a command's rows into a result table; those of other commands stay.

    Parameters
    ----------
    frame
        The command's rows, one a number.
    path
        The table; made where there is none.
    command
        Name of the command, put into the rows.
    adds
        Whether earlier rows of the command stay where this run has no row for them; otherwise all of them go.

    Raises
    ------
    UserError
        Where the file is there and is not a result table.
    """
    path = Path(path)
    own = conform(frame).with_columns(command=pl.lit(command)).unique(maintain_order=True)
    doubled = own.filter(pl.struct(KEY_COLUMNS).is_duplicated())
    if not doubled.is_empty():
        text = ", ".join(f"{name}={doubled[name][0]}" for name in KEY_COLUMNS if doubled[name][0])
        raise CloserlookError(f"analyze {command} has two rows for one number ({text}): please report this")
    with locked(path):
        return _merged(own, path, command, adds)


def _merged(own: pl.DataFrame, path: Path, command: str, adds: bool) -> Merged:
    before = all_rows(path) if path.exists() else own.clear()
    earlier = before.filter(pl.col("command") == command)
    left = earlier.join(own, on=list(KEY_COLUMNS), how="anti")
    if adds:
        # A reason for want of a number is replaced by what the same question gives now.
        question = [*(name for name in KEY_COLUMNS if name != "options"), "asked"]
        asked = own.with_columns(asked=_without_fit(own["options"])).select(question)
        reasons = left.filter(pl.col("value").is_null())
        reasons = reasons.with_columns(asked=_without_fit(reasons["options"])).join(asked, on=question, how="anti")
        left = pl.concat([left.filter(pl.col("value").is_not_null()), reasons.select(*RESULT_SCHEMA)])
    others = before.filter(pl.col("command") != command)
    parts = [others, left, own] if adds else [others, own]
    return Merged(write_all(pl.concat(parts), path), 0 if adds else len(left))


def remove_rows(rows: pl.DataFrame, path: Path) -> None:
    """Remove some rows of a table, of the same command each."""
    with locked(path):
        write_all(all_rows(path).join(rows, on=[*KEY_COLUMNS, "command"], how="anti"), path)
