"""Numbers by visual factor over a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from analyze.annotations import Annotations
from analyze.evaluate.cases import build_cases
from analyze.evaluate.whole_cache import Evaluation, choose, result_row
from analyze.intervals.resampling import resampling_of
from analyze.predictions.summaries import METADATA
from analyze.reading.sources import LABELLED, Source, sources_of
from analyze.results import to_frame
from analyze.settings import Settings
from analyze.suites import factors
from analyze.suites.registry import SUITES
from cache_schema.errors import CloserlookError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.cache import Cache


def evaluate_factors(
    cache: Cache,
    annotations: Annotations | None,
    *,
    settings: Settings,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> Evaluation:
    """Compute the numbers by factor of every model.

    Parameters
    ----------
    cache
        An open cache.
    annotations
        Joined by file name to the in-distribution sets (or those named); None for the sets' own metadata columns.
    settings
        Options.
    models, datasets
        Ids or patterns.
    progress
        Called with (model, models done, models in all).

    Raises
    ------
    UserError
        Where no dataset has annotations at all.
    """
    sources = [s for s in sources_of(cache) if s.role in LABELLED]
    wanted = set(choose({s.dataset for s in sources}, datasets, "dataset"))
    if datasets is None and annotations is not None:
        wanted = {s.dataset for s in sources if s.role == "id"}
    chosen = choose({s.model for s in sources}, models, "model")
    _check_columns([s for s in sources if s.model in chosen and s.dataset in wanted], settings)
    result = Evaluation(pl.DataFrame())
    resampling = resampling_of(settings)
    rows = []
    for done, name in enumerate(chosen, 1):
        own = [s for s in sources if s.model == name and (s.dataset in wanted or s.role == "id")]
        own = own if any(s.dataset in wanted for s in own) else []
        try:
            suites = {"factors", "annotations"}
            built = build_cases(own, settings, suites, resampling=resampling) if own else None
        except CloserlookError as error:
            result.failures[name] = str(error)
            built = None
        if built is not None:
            result.failures.update({f"{name} on {d}": reason for d, reason in built.problems.items() if d in wanted})
            for dataset, case in built.cases.items():
                if dataset not in wanted:
                    continue  # read for the temperature alone
                numbers = factors.run(case) if annotations is None else factors.by_file(case, annotations)
                version = SUITES["factors"].version
                rows += [replace(result_row(n, built, dataset), metric_version=version) for n in numbers]
        progress(name, done, len(chosen))
    result.table = to_frame(rows)
    if result.table.is_empty() and not result.failures:
        raise UserError(
            "no dataset of this cache has factor columns: give --annotations imagenet-x or a JSONL file, or name a"
            " metadata column with --columns"
        )
    return result


def _check_columns(sources: Sequence[Source], settings: Settings) -> None:
    """Refuse a metadata column that no dataset has."""
    known: set[str] = set()
    for source in {s.dataset: s for s in sources}.values():
        names = source.store.columns() if source.is_summary else [f"{METADATA}{n}" for n in source.store.metadata]
        known |= {name.removeprefix(METADATA) for name in names if name.startswith(METADATA)}
    for column in settings["factors"]["columns"]:
        if column not in known:
            told = f" They have {', '.join(sorted(known))}." if known else ""
            raise UserError(f"no chosen dataset has a metadata column {column!r}{nearest(column, known)}{told}")
