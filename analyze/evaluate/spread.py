"""A plan carried out: by this process, by several, or by the nodes of a Ray cluster, which compute the same cells."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Evaluation, Finished, Kept, Ledger, Outcome, Plan, Running, Work, run_works
from analyze.evaluate.processes import run_spread
from cache_schema.reading.cache import Cache, open_cache
from closerlook_common import cluster
from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.plugins import PluginFile, adopt, loaded_files

ENGINES = ("local", "ray")


def run_plan(
    plan: Plan, cache: Cache, kept: Kept, running: Running | None = None, *, finished: Finished | None = None
) -> Outcome:
    """Make sure that every cell of a plan is known.

    Parameters
    ----------
    plan
        What to compute.
    cache
        An open cache; for a cluster at a path or address that every node can read.
    kept
        Results of earlier runs; new ones are put there.
    running
        How the run goes. The results do not depend on it: nodes of a cluster only compute cells, and a cell that a
        node left open, because it runs another version, is computed here.
    finished
        See `analyze.evaluate.engine.run_works`.

    Raises
    ------
    UserError
        An engine that does not exist, or no cluster answers.
    """
    running = running or Running()
    if running.engine not in ENGINES:
        raise UserError(f"`engine` {running.engine!r}: choose 'local' or 'ray'")
    works = plan.works(cache)
    if running.engine == "local" and not running.processes:
        return run_works(works, kept, running, finished=finished)
    ledger = Ledger(works, kept, running.progress, finished)
    elsewhere = _Elsewhere(plan, cache, ledger)
    if running.engine == "local":
        run_spread(works, ledger, running, _one_work, elsewhere.call, elsewhere.take)
    else:
        with cluster.connected(running.address):
            _run_on_cluster(works, ledger, elsewhere, plan.memory, running)
    return ledger.result()


def run_table(
    plan: Plan, cache: Cache, cells: Cells | None = None, running: Running | None = None, **options: Any
) -> Evaluation:
    """Carry out a plan whose results are rows, and return their table; see ``run_plan``."""
    cells = cells if cells is not None else Cells(None)
    found = run_plan(plan, cache, cells, running, **options)
    return Evaluation(**vars(found), table=cells.table(found.keys))


class _Found(NamedTuple):
    """What another process computed of a work: key -> results and whether they last; what has none, and why; notes."""

    results: dict[str, tuple[list[Any], bool]]
    problems: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class _Elsewhere:
    """A plan whose works are computed by ``_one_work`` in other processes."""

    plan: Plan
    cache: Cache
    ledger: Ledger

    def call(self, work: Work) -> tuple[Any, ...]:
        """Return the arguments of ``_one_work``."""
        known = frozenset(cell.key for cell in work.cells() if cell.key in self.ledger.kept)
        return loaded_files(), self.cache.place.where, self.plan, work.name, known

    def take(self, work: Work, found: _Found) -> None:
        """Keep what ``_one_work`` computed, and compute here what it left open."""
        if work.name in found.problems:
            raise CloserlookError(found.problems[work.name])
        kept = self.ledger.kept
        for key, (own, lasting) in found.results.items():
            kept.put(key, own, lasting)
        computed, problems, notes = len(found.results), found.problems, found.notes
        if not problems and any(cell.key not in kept for cell in work.cells()):
            here = run_works([work], kept)  # a node runs another version
            computed, problems, notes = computed + here.computed, here.failures, notes + here.notes
        self.ledger.close(work, computed, problems, notes)


def _run_on_cluster(
    works: Sequence[Work], ledger: Ledger, elsewhere: _Elsewhere, memory: int, running: Running
) -> None:
    calls = [elsewhere.call(work) for work in works]
    results = cluster.run_calls(
        _one_work_on_node, calls, [cluster.Needs(memory=memory)] * len(calls), at_once=running.jobs or 0
    )
    with contextlib.closing(results):
        for index, found in results:
            with ledger.counting(works[index]):
                if isinstance(found, cluster.LostWorkerError):
                    raise CloserlookError(str(found))
                if isinstance(found, BaseException):
                    raise found
                elsewhere.take(works[index], found)


class _Own:
    """Results of this process; those that are known elsewhere need not be computed."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self.results: dict[str, tuple[list[Any], bool]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._known or key in self.results

    def keys(self) -> frozenset[str]:
        """Return the keys of all cells that are known."""
        return self._known | frozenset(self.results)

    def put(self, key: str, results: Sequence[Any], lasting: bool = True) -> None:
        """Keep the results of a cell."""
        self.results[key] = list(results), lasting


@functools.lru_cache(maxsize=1)
def _cache(where: str) -> Cache:
    """Open a cache once a process: the headers that were read are remembered from work to work."""
    return open_cache(where)


def _one_work(plugins: Sequence[PluginFile], where: str, plan: Plan, name: str, known: frozenset[str]) -> _Found:
    """Compute the missing cells of a work, with one core."""
    adopt(plugins)
    kept = _Own(known)
    found = run_works(plan.works(_cache(where), [name]), kept, Running(threads=1))
    return _Found(kept.results, found.failures, found.notes)


def _one_work_on_node(*call: Any) -> _Found:
    """Do the same on a node of a cluster, which errors name."""
    try:
        return _one_work(*call)
    except CloserlookError as error:
        raise type(error)(f"{error} (on {socket.gethostname()})") from None
