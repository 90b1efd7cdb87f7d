"""A cache in, the long result table out: every model on every dataset, with what cannot be had and why."""

from __future__ import annotations

import fnmatch
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.evaluate.cases import ModelCases, build_cases
from analyze.evaluate.cells import Cells, cell_key
from analyze.intervals.resampling import Resampling, resampling_of
from analyze.predictions.summaries import SUMMARY_VERSION
from analyze.reading.class_options import class_options
from analyze.reading.sources import Source, sources_of
from analyze.results import ResultRow, card_cells, store_digests
from analyze.settings import Settings, canonical, study_defaults
from analyze.suites.base import Number, Suite
from analyze.suites.registry import chosen_suites, direction
from cache_schema.errors import CloserlookError, UserError, nearest

if TYPE_CHECKING:
    from cache_schema.cache import Cache


@dataclass
class Evaluation:
    """What came of a run.

    Attributes
    ----------
    table
        The result table.
    computed, reused
        Cells computed now, and taken from an earlier run.
    failures
        Model -> what went wrong with it as a whole.
    keys
        Of all cells that the table was made of.
    """

    table: pl.DataFrame
    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def choose(names: Iterable[str], patterns: Sequence[str] | None, what: str) -> list[str]:
    """Return the names that match one of the patterns (``*``, ``?``), all without patterns.

    Raises
    ------
    UserError
        Where a pattern matches nothing; the nearest names are given.
    """
    names = sorted(set(names))
    if not patterns:
        return names
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            raise UserError(f"no {what} {pattern!r} in this cache{nearest(pattern, names)}")
        chosen.update(hits)
    return sorted(chosen)


def evaluate(
    cache: Cache,
    *,
    settings: Settings | None = None,
    only: list[str] | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    cells: Cells | None = None,
    sources: Sequence[Source] | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> Evaluation:
    """Compute every number of a cache.

    Parameters
    ----------
    cache
        An open cache; prediction stores are used where there are some, else summary stores.
    settings
        Options; the study's when None.
    only
        Suites or metrics; everything when None.
    models, datasets
        Ids or patterns. The in-distribution sets are read for what is fitted on them even where they are not asked for.
    cells
        Rows of earlier runs: what has not changed is taken from there, and new rows are put there.
    sources
        What to compute from; the cache's own stores when None (other heads' logits, say).
    jobs
        Models at a time; the number of cores when None. The numbers do not depend on it.
    threads
        Of each model; the cores shared out among the models when None. The numbers do not depend on it.
    progress
        Called with (model, models done, models in all) after each model.

    Returns
    -------
    Evaluation
    """
    settings = settings or study_defaults()
    suites, wanted = chosen_suites(only)
    sources = sources_of(cache) if sources is None else list(sources)
    chosen_models = choose({s.model for s in sources}, models, "model")
    chosen_datasets = set(choose({s.dataset for s in sources}, datasets, "dataset"))
    cells = cells if cells is not None else Cells(None)
    by_model: dict[str, list[Source]] = {name: [] for name in chosen_models}
    for source in sources:
        if source.model in by_model and (source.dataset in chosen_datasets or source.role == "id"):
            by_model[source.model].append(source)
    jobs = max(1, min(jobs or os.cpu_count() or 1, len(by_model)))
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    result = Evaluation(pl.DataFrame())
    resampling = resampling_of(settings)
    keys: dict[str, list[str]] = {}
    lock = threading.Lock()

    def work(name: str) -> None:
        own = by_model[name]
        model_keys, computed = _one_model(own, chosen_datasets, suites, settings, cells, threads, lock, resampling)
        with lock:
            keys[name] = model_keys
            result.computed += computed
            result.reused += len(model_keys) - computed

    done = 0
    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(work, name): name for name in by_model}
        try:
            for future in as_completed(pending):
                name = pending[future]
                try:
                    future.result()
                except (CloserlookError, OSError) as error:
                    result.failures[name] = str(error)
                done += 1
                progress(name, done, len(by_model))
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    result.keys = [key for name in chosen_models for key in keys.get(name, [])]
    table = cells.table(result.keys)
    if datasets:
        # Means over sets have no dataset of their own.
        table = table.filter(pl.col("dataset").is_in(sorted(chosen_datasets)) | (pl.col("dataset") == ""))
    if wanted:
        table = table.filter(pl.col("metric").is_in(sorted(wanted)))
    result.table = table
    return result


def _one_model(
    sources: list[Source],
    chosen: set[str],
    suites: Sequence[Suite],
    settings: Settings,
    cells: Cells,
    threads: int,
    lock: threading.Lock,
    resampling: Resampling | None,
) -> tuple[list[str], int]:
    """Make sure that every cell of a model is there; its keys, and how many had to be computed."""
    plan = [entry for suite in suites for entry in _plan(suite, sources, chosen, settings)]
    missing = [(key, suite, dataset) for key, suite, dataset in plan if key not in cells]
    if missing:
        roles = {role for _, suite, _ in missing for role in suite.uses}
        needed = {dataset for _, _, dataset in missing}
        model = build_cases(
            [s for s in sources if s.role in roles or s.dataset in needed],
            settings,
            {suite.name for _, suite, _ in missing},
            threads=threads,
            resampling=resampling,
        )
        # Dataset by dataset, those of the whole model last: what suites share of a case goes with it.
        for (_, dataset), group in itertools.groupby(sorted(missing, key=_of_dataset), key=_of_dataset):
            for key, suite, _ in group:
                rows = [
                    replace(result_row(n, model, dataset), metric_version=suite.version)
                    for n in _run(suite, model, dataset)
                ]
                with lock:
                    cells.put(key, rows)
            if dataset in model.cases:
                model.cases[dataset].shared.clear()
        for source in sources:
            source.store.release()
    return [key for key, _, _ in plan], len(missing)


def _of_dataset(cell: tuple[str, Suite, str]) -> tuple[bool, str]:
    """Return what cells are put in order by; those of no single dataset come last."""
    return cell[2] == "", cell[2]


def _plan(
    suite: Suite, sources: list[Source], chosen: set[str], settings: Settings
) -> Iterable[tuple[str, Suite, str]]:
    """Yield key, suite and dataset of each cell of a suite; a key holds everything that its numbers depend
    on.
    """
    own = [""]
    if suite.level == "dataset":
        own = [s.dataset for s in sources if s.role in suite.roles and s.dataset in chosen]
    for dataset in own:
        inputs = [
            s
            for s in sources
            if s.dataset == dataset or (s.role in suite.uses and s.dataset.startswith(suite.named))
        ]
        if not inputs:
            continue
        key = cell_key(
            suite=suite.name,
            version=suite.version,
            summary=SUMMARY_VERSION,
            dataset=dataset,
            inputs=[[s.model, s.digest, s.card_key] for s in inputs],
            options={section: dict(settings[section]) for section in (*suite.sections, "bootstrap", "classes")},
        )
        yield key, suite, dataset


def _run(suite: Suite, model: ModelCases, dataset: str) -> Iterable[Number]:
    if suite.level == "model":
        return suite.run(model)
    if dataset in model.problems:
        return [Number(metric=metric, reason=model.problems[dataset]) for metric in suite.metrics]
    return suite.run(model.cases[dataset])


def result_row(number: Number, model: ModelCases, dataset: str) -> ResultRow:
    """Turn a number into a row of the result table."""
    name = dataset if number.dataset is None else number.dataset
    card = model.model
    cards: Mapping[str, Any] = model.datasets
    options = dict(number.options)
    if name in cards:
        options |= class_options(cards[name], model.settings)
    stores = number.stores or ((model.digests[name],) if name in model.digests else ())
    return ResultRow(
        model=card.id,
        dataset=name,
        metric=number.metric,
        value=number.value,
        low=number.low,
        high=number.high,
        n=number.n,
        direction=direction(number.metric),
        id_dataset=number.id_dataset,
        score=number.score,
        calibrator=number.calibrator,
        subset=number.subset,
        factor=number.factor,
        head=model.head,
        options=canonical(options),
        reason=number.reason,
        store=store_digests(*stores),
        role=cards[name].role if name in cards else ("ood" if number.score else ""),
        **card_cells(card),
    )


def output_path(path: str | Path | None) -> Path:
    """Return where the result table goes: ``results.parquet`` in the working folder when nothing is said."""
    return Path(path) if path is not None else Path("results.parquet")
