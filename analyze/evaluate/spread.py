"""A plan carried out: on this machine, or over a Ray cluster whose nodes compute the same cells."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Evaluation, Finished, Kept, Ledger, Outcome, Plan, Running, run_works
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
    if running.engine == "local":
        return run_works(plan.works(cache), kept, running, finished=finished)
    with cluster.connected(running.address):
        return _run_on_cluster(plan, cache, kept, running, finished)


def run_table(
    plan: Plan, cache: Cache, cells: Cells | None = None, running: Running | None = None, **options: Any
) -> Evaluation:
    """Carry out a plan whose results are rows, and return their table; see ``run_plan``."""
    cells = cells if cells is not None else Cells(None)
    found = run_plan(plan, cache, cells, running, **options)
    return Evaluation(**vars(found), table=cells.table(found.keys))


class _FromNode(NamedTuple):
    """What a node computed of a work: key -> results and whether they last; what it could not compute; its notes."""

    results: dict[str, tuple[list[Any], bool]]
    problems: dict[str, str]
    notes: list[str]


def _run_on_cluster(plan: Plan, cache: Cache, kept: Kept, running: Running, finished: Finished | None) -> Outcome:
    works = plan.works(cache)
    ledger = Ledger(works, kept, running.progress, finished)
    shared = (loaded_files(), cache.place.where, plan)
    calls = [(*shared, work.name, kept.keys()) for work in works]
    needs = [cluster.Needs(memory=plan.memory)] * len(calls)
    results = cluster.run_calls(_one_work, calls, needs, at_once=running.jobs or 0)
    with contextlib.closing(results):
        for index, found in results:
            with ledger.counting(works[index]):
                if isinstance(found, cluster.LostWorkerError):
                    raise CloserlookError(str(found))
                if isinstance(found, BaseException):
                    raise found
                for key, (own, lasting) in found.results.items():
                    kept.put(key, own, lasting)
                work = works[index]
                computed, problems, notes = len(found.results), found.problems, found.notes
                if not problems and any(cell.key not in kept for cell in work.cells()):
                    here = run_works([work], kept)  # the node runs another version
                    computed, problems, notes = computed + here.computed, here.failures, notes + here.notes
                ledger.close(work, computed, problems, notes)
    return ledger.result()


class _OnNode:
    """Results of a node; those that are known elsewhere need not be computed."""

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


def _one_work(plugins: Sequence[PluginFile], where: str, plan: Plan, name: str, known: frozenset[str]) -> _FromNode:
    """Compute the missing cells of a work on a node, with the one core that the call was given."""
    adopt(plugins)
    kept = _OnNode(known)
    try:
        found = run_works(plan.works(_cache(where), [name]), kept, Running(threads=1))
    except CloserlookError as error:
        raise type(error)(f"{error} (on {socket.gethostname()})") from None
    if name in found.failures:
        raise CloserlookError(found.failures[name])
    return _FromNode(kept.results, found.failures, found.notes)
