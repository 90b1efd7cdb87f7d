"""Plans carried out into a result table on disk: what was computed before is kept next to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.evaluate.cells import Cells, KeptCells
from analyze.evaluate.engine import Evaluation, Running
from analyze.evaluate.whole_cache import MetricPlan, evaluate_plan
from analyze.results import Merged, conform, merge_results, remove_other_roles

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


@dataclass(frozen=True)
class Written:
    """What came of a run into a table.

    Attributes
    ----------
    evaluation
        The rows of this run, and which models failed.
    merged
        The table as it is on disk now; None where no table was named.
    outdated
        What was removed from it, one line a command and dataset.
    """

    evaluation: Evaluation
    merged: Merged | None
    outdated: list[str]


def compute_into(
    output: Path | None,
    command: str,
    compute: Callable[[Cells, Running], Evaluation],
    running: Running | None = None,
    *,
    fresh: bool = False,
    whole: bool = False,
) -> Written:
    """Compute what has changed since a command's last run into a table, and put the rows into it.

    Parameters
    ----------
    output
        The table (Parquet); made where there is none. Its cells are in a hidden file next to it. None keeps the rows in
        memory only.
    command
        Whose rows they are.
    compute
        Carries out the plan, given what is known and how the run goes.
    running
        How the run goes.
    fresh
        Compute everything again.
    whole
        Whether everything is computed, so that other cells are of stores or options that are gone.
    """
    running = running or Running()
    with KeptCells(output, command, fresh=fresh) as kept:
        result = compute(kept.cells, replace(running, progress=kept.saving(running.progress)))
        if whole and not result.failures:
            kept.keep = result.keys
    if output is None:
        return Written(result, None, [])
    table = conform(result.table)
    outdated = remove_other_roles(output, table, command=command)
    return Written(result, merge_results(table, output, command=command), outdated)


def evaluate_into(
    output: Path, cache: Cache, plan: MetricPlan, running: Running | None = None, *, fresh: bool = False
) -> Written:
    """Compute the metrics of a cache into a table; see ``compute_into``."""
    return compute_into(
        output,
        "prompts" if plan.prompt_sets else "metrics",
        lambda cells, how: evaluate_plan(plan, cache, cells, how),
        running,
        fresh=fresh,
        whole=not (plan.only or plan.models or plan.datasets or plan.prompt_sets),
    )
