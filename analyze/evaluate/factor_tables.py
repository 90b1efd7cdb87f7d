"""Numbers by visual factor over a cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from analyze.annotations import Annotations
from analyze.evaluate.cases import build_cases
from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Cell, Computed, Evaluation, Running
from analyze.evaluate.spread import run_table
from analyze.evaluate.whole_cache import choose, result_row, suite_cells
from analyze.intervals.resampling import Resampling, resampling_of
from analyze.predictions.summaries import METADATA
from analyze.reading.sources import LABELLED, Source, sources_of
from analyze.settings import Settings
from analyze.suites import factors
from analyze.suites.base import Wanted, restricted
from analyze.suites.registry import SUITES
from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


def evaluate_factors(
    plan: FactorPlan, cache: Cache, cells: Cells | None = None, running: Running | None = None
) -> Evaluation:
    """Compute the numbers by factor of every model.

    Parameters
    ----------
    plan
        What to compute.
    cache
        An open cache.
    cells
        Rows of earlier runs; new ones are put there.
    running
        How the run goes; the numbers do not depend on it.

    Raises
    ------
    UserError
        Where no dataset has annotations at all.
    """
    plan.check_columns(cache)
    result = run_table(plan, cache, cells, running)
    if result.table.is_empty() and not result.failures:
        raise UserError(
            "no dataset of this cache has factor columns: give `annotations` imagenet-x or a JSONL file, or name a"
            " metadata column with `columns`"
        )
    return result


@dataclass(frozen=True)
class FactorPlan:
    """The numbers by factor of every model; see ``engine.Plan``.

    Attributes
    ----------
    settings
        Options.
    annotations
        Joined by file name to the in-distribution sets (or those named); None for the sets' own metadata columns.
    models, datasets
        Ids or patterns.
    """

    settings: Settings
    annotations: Annotations | None = None
    models: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    memory: ClassVar[int] = 1 << 30

    def works(self, cache: Cache, names: Collection[str] | None = None) -> list[FactorWork]:
        """Return one work a model."""
        sources, wanted, chosen = self._chosen(cache)
        works = []
        for name in chosen if names is None else [name for name in chosen if name in names]:
            own = [s for s in sources if s.model == name and (s.dataset in wanted or s.role == "id")]
            works.append(FactorWork(name, own, wanted, self.annotations, self.settings, resampling_of(self.settings)))
        return works

    def _chosen(self, cache: Cache) -> tuple[list[Source], set[str], list[str]]:
        """Return the labelled sources, the datasets that numbers are wanted of, and the models."""
        sources = [s for s in sources_of(cache) if s.role in LABELLED]
        wanted = set(choose({s.dataset for s in sources}, self.datasets, "dataset"))
        if self.datasets is None and self.annotations is not None:
            wanted = {s.dataset for s in sources if s.role == "id"}
        return sources, wanted, choose({s.model for s in sources}, self.models, "model")

    def check_columns(self, cache: Cache) -> None:
        """Raise UserError for a metadata column that no chosen dataset has."""
        sources, wanted, chosen = self._chosen(cache)
        _check_columns([s for s in sources if s.model in chosen and s.dataset in wanted], self.settings)


@dataclass
class FactorWork:
    """The numbers by factor of one model; see ``engine.Work``.

    Attributes
    ----------
    name, sources
        The model and its labelled stores.
    wanted
        Datasets that numbers are wanted of; the others are read for the temperature alone.
    annotations, settings, resampling
        See ``FactorPlan``, and the bootstrap.
    problems
        ``MODEL on DATASET`` -> why it has no numbers.
    """

    name: str
    sources: list[Source]
    wanted: set[str]
    annotations: Annotations | None
    settings: Settings
    resampling: Resampling | None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return the cell of each wanted dataset."""
        joined = "" if self.annotations is None else self.annotations.digest
        cells = suite_cells(
            SUITES["factors"], self.sources, self.wanted, self.settings, command="factors", joined=joined
        )
        return list(cells)

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Yield the numbers of each dataset; what goes wrong with one is its problem."""
        suite = SUITES["factors"]
        needed = {cell.of.dataset for cell in missing}
        sources = [s for s in self.sources if s.role in suite.uses or s.dataset in needed]
        wanted = Wanted.of([suite], "image_keys")
        built = build_cases(sources, self.settings, wanted, threads=threads, resampling=self.resampling)
        for cell in missing:
            dataset = cell.of.dataset
            if dataset in built.problems:
                self.problems[f"{self.name} on {dataset}"] = built.problems[dataset]
                continue
            case = restricted(built.cases[dataset], frozenset(suite.declared))
            numbers = factors.run(case) if self.annotations is None else factors.by_file(case, self.annotations)
            rows = [result_row(number, built, dataset) for number in numbers]
            yield Computed(cell, rows, not (built.unreadable and any(row.reason for row in rows)))
        for source in self.sources:
            source.store.release()


def _check_columns(sources: Sequence[Source], settings: Settings) -> None:
    """Refuse a metadata column that no dataset has."""
    known: set[str] = set()
    for source in {s.dataset: s for s in sources}.values():
        names = source.store.columns() if source.is_summary else [f"{METADATA}{n}" for n in source.store.metadata]
        known |= {name.removeprefix(METADATA) for name in names if name.startswith(METADATA)}
    for column in settings["factors"]["columns"]:
        if column not in known:
            listed = f"; they have {', '.join(sorted(known))}" if known else ""
            raise UserError(f"no chosen dataset has a metadata column {column!r}{nearest(column, known)}{listed}")
