"""The detectors over every model of a cache, with rows of earlier runs left alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from analyze.evaluate.cells import KeptCells
from analyze.evaluate.engine import Running
from analyze.evaluate.spread import run_plan
from analyze.ood.effects import KeptEffects
from analyze.ood.inputs import OodOptions
from analyze.ood.resuming import outdated
from analyze.ood.scoring import models_of
from analyze.ood.work import OodPlan
from analyze.results import KEY_COLUMNS, ResultRow, conform, merge_results, to_frame
from analyze.results.joining import all_rows, remove_rows
from closerlook_common.errors import CloserlookError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


@dataclass
class OodRun:
    """What came of a run.

    Attributes
    ----------
    models
        All that were chosen.
    rows
        Computed now.
    unchanged
        Models whose rows were there already.
    missing
        Detectors that could not run, counted once a model.
    dropped
        Earlier rows that were removed because roles or distances of their datasets have changed.
    failures
        Model -> why it failed as a whole.
    notes
        Images that a detector has no score of: a line for each model, detector and set.
    effects
        What each image adds to the numbers that were computed on this machine; None without a table.
    """

    models: list[str]
    rows: list[ResultRow] = field(default_factory=list)
    unchanged: int = 0
    missing: int = 0
    dropped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    effects: KeptEffects | None = None


def score_cache(
    cache: Cache,
    options: OodOptions,
    *,
    output: Path | None = None,
    fresh: bool = False,
    running: Running | None = None,
) -> OodRun:
    """Fit and score the detectors on every chosen model.

    Parameters
    ----------
    cache
        An open cache.
    options
        What to do, as ``analyze.ood.choices.checked`` returns it.
    output
        Result table that each model's rows are put into as soon as they are done; detectors that were computed before,
        from the same stores and options, are not computed again. None keeps the rows in memory only.
    fresh
        Compute everything again.
    running
        How the run goes; on this machine one model at a time where it does not say, for a model's reference takes
        memory.
    """
    running = running or Running()
    if running.engine == "local" and running.jobs is None:
        running = replace(running, jobs=1)
    run = OodRun(models_of(cache, options))
    table = all_rows(output) if output is not None and output.exists() else None
    if output is not None and table is not None:
        run.dropped = _remove_outdated(table, output, cache, run.models, options)

    run.effects = None if output is None else KeptEffects(output, fresh=fresh)
    with KeptCells(output, "ood", fresh=fresh) as kept, run.effects or nullcontext():

        def finished(model: str, keys: Sequence[str], computed: int) -> None:
            """Put the rows of a model into the table as soon as they are known."""
            run.unchanged += not computed
            rows = kept.cells.table(keys)
            if output is not None and (computed or table is None or _lacks(table, rows)):
                merge_results(rows, output, command="ood", adds=True)

        running = replace(running, progress=kept.saving(running.progress))
        here = run.effects if running.engine == "local" else None  # other machines send rows alone
        found = run_plan(OodPlan(options, here), cache, kept.cells, running, finished=finished)
        run.rows = [row for rows, _ in kept.cells.computed().values() for row in rows]
    run.missing = len({(row.model, row.score) for row in run.rows if row.reason})
    run.failures = found.failures
    run.notes = found.notes
    return run


def _remove_outdated(
    table: pl.DataFrame, output: Path, cache: Cache, models: Sequence[str], options: OodOptions
) -> int:
    """Remove rows that rest on roles which the datasets no longer have; return how many."""
    dropped = 0
    for name in models:
        try:
            stale = outdated(table, cache, name, options)
        except (CloserlookError, OSError):
            continue  # the engine meets the same error, and reports it
        if len(stale):
            dropped += len(stale)
            remove_rows(stale, output)
    return dropped


def _lacks(table: pl.DataFrame, rows: pl.DataFrame) -> bool:
    """Return whether some rows are not in a table."""
    own = conform(rows).with_columns(command=pl.lit("ood"))
    return not own.join(table, on=[*KEY_COLUMNS, "command", "store"], how="anti").is_empty()


def rows_of(run: OodRun) -> pl.DataFrame:
    """Return the rows of a run as a result table."""
    return to_frame(run.rows)
