"""A cache in, the long result table out: every model on every dataset, with what cannot be had and why."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import polars as pl

from analyze.evaluate.cases import ModelCases, build_cases
from analyze.evaluate.cells import Cells, cell_key
from analyze.evaluate.engine import Cell, Computed, Evaluation, Running
from analyze.evaluate.spread import run_table
from analyze.intervals.resampling import Resampling, resampling_of
from analyze.metrics.registry import direction, version
from analyze.predictions.summaries import SUMMARY_VERSION
from analyze.prompted import ALL_TEMPLATES, TemplateChoice, prompted_sources
from analyze.reading.class_options import class_options, competing_classes
from analyze.reading.sources import Source, sources_of
from analyze.results import ResultRow, card_cells, store_digests
from analyze.settings import Settings, canonical, study_defaults
from analyze.suites.base import Number, Suite, Wanted
from analyze.suites.registry import chosen_suites
from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import digest_of, plugin_names

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


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
    running: Running | None = None,
) -> Evaluation:
    """Compute every number of a cache; see ``MetricPlan`` and ``evaluate_plan``."""
    plan = MetricPlan(settings or study_defaults(), only, models, datasets)
    return evaluate_plan(plan, cache, cells, running)


def evaluate_plan(
    plan: MetricPlan, cache: Cache, cells: Cells | None = None, running: Running | None = None
) -> Evaluation:
    """Carry out a plan.

    Parameters
    ----------
    plan
        What to compute.
    cache
        An open cache; prediction stores are used where there are some, else summary stores.
    cells
        Rows of earlier runs: what has not changed is taken from there, and new rows are put there.
    running
        How the run goes; the numbers do not depend on it.

    Returns
    -------
    Evaluation
        Its table holds the metrics and datasets that were asked for.
    """
    plan = replace(plan, settings=with_plugged_calibrators(plan.settings))
    result = run_table(plan, cache, cells, running)
    result.table = plan.asked_for(result.table, cache)
    return result


@dataclass(frozen=True)
class MetricPlan:
    """The suites on every model and dataset; see ``engine.Plan``.

    Attributes
    ----------
    settings
        Options.
    only
        Suites or metrics; everything when None.
    models, datasets
        Ids or patterns; all when None. The in-distribution sets are read for what is fitted on them even where they
        are not asked for.
    prompt_sets
        Compute from embeddings and the heads of these prompt sets (``prompted.prompted_sources``), not from the stored
        logits; empty for these.
    templates
        Which templates of these sets count, and how much each: once with each choice.
    """

    settings: Settings
    only: Sequence[str] | None = None
    models: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    prompt_sets: tuple[str, ...] = ()
    templates: tuple[TemplateChoice, ...] = (ALL_TEMPLATES,)
    memory: ClassVar[int] = 1 << 30

    def works(self, cache: Cache, names: Collection[str] | None = None) -> list[MetricWork]:
        """Return one work a model, or one a model and prompt set."""
        suites, _ = chosen_suites(self.only)
        resampling = resampling_of(self.settings)
        works = []
        for prompts, sources in self._sources(cache):
            if not sources:
                continue
            chosen = set(choose({s.dataset for s in sources}, self.datasets, "dataset"))
            own: dict[str, list[Source]] = {}
            for source in sources:
                if source.dataset in chosen or source.role == "id":
                    own.setdefault(source.model, []).append(source)
            for model in choose({s.model for s in sources}, self.models, "model"):
                name = f"{model} under {prompts}" if prompts else model
                if names is None or name in names:
                    works.append(MetricWork(name, own.get(model, []), chosen, suites, self.settings, resampling))
        return works

    def _sources(self, cache: Cache) -> Iterator[tuple[str, list[Source]]]:
        """Yield the stores that are read, under the name of each choice of prompts; empty for the stored logits."""
        if not self.prompt_sets:
            yield "", sources_of(cache)
        for prompts, choice in itertools.product(self.prompt_sets, self.templates if self.prompt_sets else ()):
            yield ":".join(filter(None, [prompts, str(choice)])), prompted_sources(cache, prompts, choice)[0]

    def asked_for(self, table: pl.DataFrame, cache: Cache) -> pl.DataFrame:
        """Return the rows of the datasets and metrics that were asked for."""
        if self.datasets:
            sets = {source.dataset for _, sources in self._sources(cache) for source in sources}
            # Means over sets have no dataset of their own.
            table = table.filter(pl.col("dataset").is_in([*choose(sets, self.datasets, "dataset"), ""]))
        _, wanted = chosen_suites(self.only)
        return table.filter(pl.col("metric").is_in(sorted(wanted))) if wanted else table


@dataclass
class MetricWork:
    """The suites on the stores of one model; see ``engine.Work``.

    Attributes
    ----------
    name, sources
        The model (with the prompt set, where there are several), and its stores.
    chosen
        Datasets that numbers are wanted of; the others are read for what is fitted on them.
    suites, settings, resampling
        Metrics, options, and the bootstrap.
    problems
        See ``engine.Work``; every cell gives rows, with reasons where there is no number.
    """

    name: str
    sources: list[Source]
    chosen: set[str]
    suites: Sequence[Suite]
    settings: Settings
    resampling: Resampling | None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return the cells of every suite."""
        return [cell for suite in self.suites for cell in suite_cells(suite, self.sources, self.chosen, self.settings)]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Make the cases that the missing cells need, and yield the numbers of their suites."""
        roles = {role for cell in missing for role in cell.of.suite.uses}
        needed = {cell.of.dataset for cell in missing}
        model = build_cases(
            [s for s in self.sources if s.role in roles or s.dataset in needed],
            self.settings,
            Wanted.of({cell.of.suite.name: cell.of.suite for cell in missing}.values()),
            threads=threads,
            resampling=self.resampling,
        )
        # Dataset by dataset, those of the whole model last: what suites share of a case goes with it.
        for (_, dataset), group in itertools.groupby(sorted(missing, key=_of_dataset), key=_of_dataset):
            for cell in group:
                rows = [result_row(n, model, dataset) for n in _run(cell.of.suite, model, dataset)]
                yield Computed(cell, rows, not (model.unreadable and any(row.reason for row in rows)))
            if dataset in model.cases:
                model.cases[dataset].shared.clear()
        for source in self.sources:
            source.store.release()


class _SuiteOn(NamedTuple):
    """A suite on a dataset; the dataset is empty for a suite of the whole model."""

    suite: Suite
    dataset: str


def _of_dataset(cell: Cell) -> tuple[bool, str]:
    """Return what cells are put in order by; those of no single dataset come last."""
    return cell.of.dataset == "", cell.of.dataset


def suite_cells(
    suite: Suite, sources: list[Source], chosen: set[str], settings: Settings, **more: Any
) -> Iterator[Cell]:
    """Yield the cells of a suite; a key holds everything that its numbers depend on, ``more`` among it."""
    own = [""]
    if suite.level == "dataset":
        own = [s.dataset for s in sources if s.role in suite.roles and s.dataset in chosen]
    for dataset in own:
        inputs = [
            s for s in sources if s.dataset == dataset or (s.role in suite.uses and s.dataset.startswith(suite.named))
        ]
        if not inputs:
            continue
        key = cell_key(
            suite=suite.name,
            versions=suite.versions,
            summary=SUMMARY_VERSION,
            dataset=dataset,
            inputs=[[s.model, s.digest, s.card_key] for s in inputs],
            options={section: dict(settings[section]) for section in suite.declared},
            **_code_of(suite),
            **more,
        )
        yield Cell(key, _SuiteOn(suite, dataset))


def _code_of(suite: Suite) -> dict[str, Any]:
    """Return the digests of the plug-ins behind a suite's numbers, for its keys; nothing where there are none."""
    names = [("metrics", name) for name in suite.metrics] + [("calibrators", name) for name in suite.fits()]
    digests = {name: digest for kind, name in names if (digest := digest_of(kind, name))}
    return {"plugins": digests} if digests else {}


def with_plugged_calibrators(settings: Settings) -> Settings:
    """Return settings that ask for every calibrator that was plugged in, besides those that they name."""
    methods = settings["calibrators"]["methods"]
    further = [name for name in plugin_names("calibrators") if name not in methods]
    return settings.updated("calibrators", methods=[*methods, *further]) if further else settings


def _run(suite: Suite, model: ModelCases, dataset: str) -> Iterable[Number]:
    if suite.level == "model":
        return suite.numbers(model)
    if dataset in model.problems:
        return [Number(metric=metric, reason=model.problems[dataset]) for metric in suite.metrics]
    return suite.numbers(model.cases[dataset])


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
        interval=number.interval,
        n=number.n,
        direction=direction(number.metric),
        metric_version=version(number.metric),
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
        classes=_classes_of(number, name, model),
        **card_cells(card),
    )


def _classes_of(number: Number, dataset: str, model: ModelCases) -> int | None:
    """Return how many classes competed where a number was computed; None where nobody knows."""
    on = number.subset.removeprefix("classes:")  # the ID set on the classes of another set
    name = on if number.subset.startswith("classes:") and on in model.datasets else dataset
    return competing_classes(model.datasets[name], model.settings) if name in model.datasets else None


def output_path(path: str | Path | None) -> Path:
    """Return where the result table goes: ``results.parquet`` in the working folder when none is given."""
    return Path(path) if path is not None else Path("results.parquet")
