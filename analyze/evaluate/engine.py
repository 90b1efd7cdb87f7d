"""The engine behind the commands over a cache: missing cells are computed, the others are taken as they are.

A command describes what there is to do as a ``Plan``, whose ``Work`` is one model (or one dataset, where models are
compared). Resuming, jobs, failures and progress are here; ``spread`` carries a plan out, on this machine or a cluster.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import polars as pl

from closerlook_common.errors import CloserlookError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

Progress = Callable[[str, int, int], None]
Finished = Callable[[str, Sequence[str], int], None]


def silent(name: str, done: int, total: int) -> None:
    """Report nothing."""


class Cell(NamedTuple):
    """Results that are computed, kept and computed again together.

    Attributes
    ----------
    key
        Equal for equal inputs, options and versions (``cells.cell_key``).
    of
        What the results are of, for the work that computes them.
    """

    key: str
    of: Any


class Computed(NamedTuple):
    """The results of a cell, and whether later runs may keep them (a store that could not be read is tried again)."""

    cell: Cell
    results: Sequence[Any]
    lasting: bool = True


class Work(Protocol):
    """What is computed of one model, or of one dataset.

    Attributes
    ----------
    name
        Of the model or dataset, for progress and failures; no two works of a plan share it.
    problems
        Part of it -> why it has no results; filled by ``compute``.
    notes
        What a reader should know of results that are there; filled by ``compute``.
    """

    name: str
    problems: dict[str, str]
    notes: list[str]

    def cells(self) -> Sequence[Cell]:
        """Return every cell, in the order of the table; reads no arrays."""

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Yield the results of the cells that are not known."""


class Plan(Protocol):
    """What a command computes of a cache: options alone, so that another machine can take it up.

    Attributes
    ----------
    memory
        Bytes that a work takes at most, for clusters.
    """

    @property
    def memory(self) -> int:
        """Bytes that a work takes at most."""

    def works(self, cache: Cache, names: Collection[str] | None = None) -> Sequence[Work]:
        """Return the works of a cache, or those of some names."""


class Kept(Protocol):
    """Where results lie: a table's cells, summaries in a folder, comparisons."""

    def __contains__(self, key: str) -> bool:
        """Return whether the results of a cell are known."""

    def keys(self) -> frozenset[str]:
        """Return the keys of all cells that are known."""

    def put(self, key: str, results: Sequence[Any], lasting: bool = True) -> None:
        """Keep the results of a cell; called from several threads."""


@dataclass(frozen=True)
class Running:
    """How a run goes. No number depends on it.

    Attributes
    ----------
    jobs
        Works at a time; the number of cores when None.
    threads
        Of each work; the cores shared out among the works when None.
    engine
        ``local``, or ``ray`` for a cluster.
    processes
        Whether ``local`` may go on in processes where much is left to do: the program must not do anything when a
        process imports its main module, which scripts and notebooks do not promise.
    address
        Of the cluster; empty takes the one of this machine, else starts one.
    progress
        Called with (name, works done, works in all) after each work.
    """

    jobs: int | None = None
    threads: int | None = None
    engine: str = "local"
    processes: bool = False
    address: str = ""
    progress: Progress = silent


@dataclass
class Outcome:
    """What came of a run.

    Attributes
    ----------
    computed, reused
        Cells computed now, and known from an earlier run.
    failures
        Work, or part of one -> what went wrong.
    notes
        Of the works that computed something.
    keys
        Of all cells that are known now, in the order of the works and of their cells.
    """

    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@dataclass
class Evaluation(Outcome):
    """What came of a run that makes rows of a result table, and that table."""

    table: pl.DataFrame = field(default_factory=pl.DataFrame)


class Ledger:
    """What a run has done so far, work by work.

    Parameters
    ----------
    works
        All of them.
    kept
        Results of earlier runs; new ones are put there.
    progress, finished
        See ``run_works``.
    """

    def __init__(self, works: Sequence[Work], kept: Kept, progress: Progress, finished: Finished | None) -> None:
        self.works, self.kept, self.progress, self.finished = works, kept, progress, finished
        self.outcome = Outcome()
        self._keys: dict[str, list[str]] = {}
        self._done = 0
        self._lock = threading.Lock()

    def work_on(self, work: Work, threads: int) -> None:
        """Compute what is missing of a work."""
        missing = [cell for cell in work.cells() if cell.key not in self.kept]
        computed = 0
        for cell, results, lasting in work.compute(missing, threads) if missing else ():
            self.kept.put(cell.key, results, lasting)
            computed += 1
        self.close(work, computed, work.problems, work.notes)

    def close(self, work: Work, computed: int, problems: Mapping[str, str], notes: Sequence[str]) -> None:
        """Note what came of a work, here or on a node."""
        own = [cell.key for cell in work.cells() if cell.key in self.kept]
        with self._lock:
            self._keys[work.name] = own
            self.outcome.computed += computed
            self.outcome.reused += len(own) - computed
            self.outcome.failures.update(problems)
            self.outcome.notes += notes
            if self.finished is not None:
                self.finished(work.name, own, computed)

    @contextlib.contextmanager
    def counting(self, work: Work) -> Iterator[None]:
        """Note that a work is over at the end, and why where it failed as a whole."""
        try:
            yield
        except (CloserlookError, OSError) as error:
            self.outcome.failures[work.name] = str(error)
        self._done += 1
        self.progress(work.name, self._done, len(self.works))

    def result(self) -> Outcome:
        """Return what came of the run."""
        self.outcome.keys = [key for work in self.works for key in self._keys.get(work.name, [])]
        return self.outcome


def run_works(
    works: Sequence[Work], kept: Kept, running: Running | None = None, *, finished: Finished | None = None
) -> Outcome:
    """Make sure that every cell of every work is known, with threads of this process.

    Parameters
    ----------
    works
        What there is to do.
    kept
        Results of earlier runs; new ones are put there.
    running
        How the run goes.
    finished
        Called with (name, keys of its cells, cells computed) after each work that did not fail, one at a time.

    Returns
    -------
    Outcome
    """
    running = running or Running()
    ledger = Ledger(works, kept, running.progress, finished)
    in_threads(works, ledger, *shares_of(running, len(works)))
    return ledger.result()


def shares_of(running: Running, works: int) -> tuple[int, int]:
    """Return how many works are done at a time, and the threads of each."""
    cores = os.cpu_count() or 1
    jobs = max(1, min(running.jobs or cores, works))
    return jobs, running.threads or max(1, cores // jobs)


def in_threads(
    works: Sequence[Work], ledger: Ledger, jobs: int, threads: int, enough: Callable[[int, int], bool] | None = None
) -> list[Work]:
    """Carry out works with threads of this process.

    Parameters
    ----------
    works, ledger
        What there is to do, and what takes note of it.
    jobs, threads
        As ``shares_of`` returns them.
    enough
        Whether no further work is to be begun, from how many are done and how many were not begun.

    Returns
    -------
    list
        Works that were not begun.
    """
    todo, pending, done = deque(works), dict[Future[None], Work](), 0
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while todo or pending:
                while todo and len(pending) < jobs and not (enough and enough(done, len(todo))):
                    work = todo.popleft()
                    pending[pool.submit(ledger.work_on, work, threads)] = work
                if not pending:
                    break
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    with ledger.counting(pending.pop(future)):
                        future.result()
                    done += 1
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return list(todo)
