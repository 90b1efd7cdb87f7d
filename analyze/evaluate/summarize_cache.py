"""Summaries of a whole cache: every prediction store, and the ID sets on the classes of the shifted sets."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from analyze.evaluate.cases import build_cases, subset_name
from analyze.evaluate.cells import cell_key
from analyze.evaluate.engine import Cell, Computed, Running
from analyze.evaluate.spread import run_plan
from analyze.evaluate.whole_cache import choose
from analyze.intervals.resampling import resampling_of
from analyze.predictions.summaries import SUMMARY_VERSION, Summary, write
from analyze.reading.sources import Source, sources_of
from analyze.settings import Settings
from analyze.suites.base import Wanted
from analyze.suites.registry import SUITES
from cache_schema.copying.roles import copy_roles

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

MADE_FOR = ("accuracy", "calibration", "detection", "conformal")
"""Suites whose numbers a summary must be able to give."""

SECTIONS = ("accuracy", "split", "calibrators", "calibration", "ood", "conformal", "bootstrap", "classes")
"""Sections of the settings that a summary depends on; no other can be read while it is made."""


@dataclass
class Summarized:
    """What came of it: summaries written and unchanged, their bytes and images, and failures by model and dataset."""

    written: int = 0
    unchanged: int = 0
    n_bytes: int = 0
    n_images: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def summarize_cache(
    cache: Cache,
    to: str | Path,
    *,
    settings: Settings,
    models: Sequence[str] | None = None,
    backend: str = "zarr",
    fresh: bool = False,
    running: Running | None = None,
) -> Summarized:
    """Summarize every prediction store of a cache.

    A summary is left as it is where it was made from the same stores with the same options.

    Parameters
    ----------
    cache
        An open cache.
    to
        Folder of the cache that the summaries are written to.
    settings
        Options: the split, temperatures, GEN and conformal sets that the summaries hold; with a bootstrap also the
        interval of the classwise error, which needs all probabilities.
    models
        Ids or patterns; all when None.
    backend
        ``zarr`` or ``hdf5``.
    fresh
        Write every summary again.
    running
        How the run goes. Nodes of a cluster compute; what they found is written here.
    """
    if Path(to).absolute() != cache.path.absolute():
        copy_roles(cache.place, Path(to))
    stores = SummaryStores(Path(to), backend, fresh=fresh)
    found = run_plan(SummarizePlan(settings, models), cache, stores, running)
    stores.done.unchanged = stores.unchanged(found.keys)
    stores.done.failures = found.failures
    return stores.done


class _Made(NamedTuple):
    """A summary, and the key of what it was made from."""

    summary: Summary
    key: str


class SummaryStores:
    """The summary stores of a folder (see ``engine.Kept``): a cell is known where its dataset's own summary is there.

    Parameters
    ----------
    to, backend
        Where they are written, and as what.
    fresh
        Write those again that are there.
    """

    def __init__(self, to: Path, backend: str, *, fresh: bool = False) -> None:
        self._to, self._backend = to, backend
        self._present = {} if fresh else _present(to)
        self._known = {_name(*where[:2], key) for where, key in self._present.items() if not where[2]}
        self._written: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        self.done = Summarized()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def keys(self) -> frozenset[str]:
        """Return the keys of the cells that need not be computed."""
        return frozenset(self._known)

    def put(self, key: str, results: Sequence[_Made], lasting: bool = True) -> None:
        """Write the summaries of a cell, the dataset's own last."""
        del lasting
        for summary, own in results:
            where = (summary.model.id, summary.dataset.id, summary.variant)
            with self._lock:
                if self._present.get(where) == own:
                    continue
            store = write(self._to, summary, backend=self._backend, key=own, overwrite=True)
            with self._lock:
                self._present[where] = own
                self._written.add(where)
                self.done.written += 1
                self.done.n_bytes += store.n_bytes()
                self.done.n_images += len(store)
        self._known.add(key)

    def unchanged(self, keys: Sequence[str]) -> int:
        """Return how many summaries of some cells were there already, those of other class views among them."""
        known = set(keys)
        return sum(
            _name(*where[:2], key) in known and where not in self._written for where, key in self._present.items()
        )


def _name(model: str, dataset: str, key: str) -> str:
    """Return the key of a cell: two models may give the same outputs."""
    return cell_key(model=model, dataset=dataset, made_from=key)


def _present(folder: Path) -> dict[tuple[str, str, str], str]:
    """Keys of the summaries that are there already: (model, dataset, variant) -> key."""
    if not folder.is_dir():
        return {}
    from cache_schema import open_cache

    found = {}
    for store in open_cache(folder).stores("summary"):
        name = (store.model_id, store.dataset_id, store.details["variant"])
        found[name] = store.recorded("key")
    return found


def _key(sources: Sequence[Source], source: Source, settings: Settings) -> str:
    inside = [s.digest for s in sources if s.role == "id"]
    return cell_key(
        summary=SUMMARY_VERSION,
        inputs=[source.digest, source.card_key, inside],
        options={section: dict(settings[section]) for section in SECTIONS},
    )


@dataclass(frozen=True)
class SummarizePlan:
    """The summaries of every model (``models``: ids or patterns, all when None); see ``engine.Plan``."""

    settings: Settings
    models: Sequence[str] | None = None
    memory: ClassVar[int] = 1 << 30

    def works(self, cache: Cache, names: Collection[str] | None = None) -> list[SummarizeWork]:
        """Return one work a model."""
        sources: dict[str, list[Source]] = {}
        for source in sources_of(cache):
            if not source.is_summary:
                sources.setdefault(source.model, []).append(source)
        chosen = choose(sources, self.models, "model")
        return [SummarizeWork(n, sources[n], self.settings) for n in chosen if names is None or n in names]


@dataclass
class SummarizeWork:
    """The summaries of one model; see ``engine.Work``.

    Attributes
    ----------
    name, sources
        The model and its prediction stores.
    settings
        Options.
    problems
        ``MODEL on DATASET`` -> why it has no summary.
    """

    name: str
    sources: list[Source]
    settings: Settings
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return a cell for each dataset."""
        return [
            Cell(_name(self.name, s.dataset, key), (s.dataset, key))
            for s in self.sources
            for key in [_key(self.sources, s, self.settings)]
        ]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Yield, of each dataset, its summaries on the classes of other sets (and theirs on its own), and its own."""
        suites = Wanted.of([SUITES[name] for name in MADE_FOR], "image_keys", "subsets")
        settings = self.settings.only(*SECTIONS)
        built = build_cases(self.sources, settings, suites, threads=threads, resampling=resampling_of(self.settings))
        self.problems |= {f"{self.name} on {name}": reason for name, reason in built.problems.items()}
        keys = {cell.of[0]: cell.of[1] for cell in self.cells()}
        left = dict(built.subsets)
        for cell in missing:
            dataset, key = cell.of
            parts = {place: left.pop(place) for place in list(left) if dataset in place}
            made = list(self._subsets(parts, keys))
            if dataset in built.cases:
                # Its own last: a dataset that has this one counts as done.
                yield Computed(cell, [*made, _Made(built.cases[dataset].summary, key)])

    def _subsets(self, found: Mapping[tuple[str, str], Summary | str], keys: dict[str, str]) -> Iterator[_Made]:
        """Yield summaries of ID sets on other sets' classes; those that cannot be made are problems."""
        for (inside, other), summary in found.items():
            if isinstance(summary, Summary):
                yield _Made(summary, keys[inside])
            else:
                self.problems[f"{self.name} on {inside} on {subset_name(other)}"] = summary
