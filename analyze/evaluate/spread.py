"""The models of a cache spread over a Ray cluster: the same cells as on this machine, computed elsewhere."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from analyze.evaluate.cells import Cells
from analyze.evaluate.whole_cache import Evaluation, choose, evaluate
from analyze.reading.sources import sources_of
from analyze.results import ResultRow
from analyze.settings import Settings, study_defaults
from cache_schema import cluster
from cache_schema.cache import Cache, open_cache
from cache_schema.errors import CloserlookError

MEMORY = 1 << 30
"""Bytes that one model takes; it does not grow with the images."""


def evaluate_on_cluster(
    cache: Cache,
    *,
    address: str = "",
    settings: Settings | None = None,
    only: list[str] | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    cells: Cells | None = None,
    jobs: int | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> Evaluation:
    """Compute every number of a cache, each model on some node; see `analyze.evaluate.evaluate`.

    Parameters
    ----------
    cache
        On a file system or at an address that every node sees.
    address
        Of the cluster; empty takes the one of this machine, else starts one.
    jobs
        Most models at a time; as many as the cluster has cores when None.
    settings, only, models, datasets, cells, progress
        See `analyze.evaluate.evaluate`.

    Returns
    -------
    Evaluation
        Equal to what one machine gives: the nodes only fill in cells, and the table is made of these here. A cell
        that a node left open, because it runs another version, is computed here.
    """
    settings = settings or study_defaults()
    cells = cells if cells is not None else Cells(None)
    names = choose({source.model for source in sources_of(cache)}, models, "model")
    where = cache.place.where
    failures: dict[str, str] = {}
    computed = 0
    with cluster.connected(address):
        calls = [(where, name, settings, only, datasets, cells.keys()) for name in names]
        results = cluster.run_calls(
            _one_model, calls, [cluster.Needs(memory=MEMORY)] * len(calls), at_once=jobs or 0
        )
        with contextlib.closing(results):  # type: ignore[type-var]
            for done, (index, result) in enumerate(results, 1):
                if isinstance(result, cluster.LostWorkerError | CloserlookError | OSError):
                    failures[names[index]] = str(result)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    computed += len(result)
                    for key, rows in result.items():
                        cells.put(key, rows)
                progress(names[index], done, len(names))
    whole = [name for name in names if name not in failures]
    if not whole:
        return Evaluation(cells.table([]), failures=failures)
    found = evaluate(cache, settings=settings, only=only, models=whole, datasets=datasets, cells=cells, jobs=jobs)
    return replace(
        found, computed=found.computed + computed, reused=found.reused - computed, failures=found.failures | failures
    )


class _Known(Cells):
    """Cells of which some are known elsewhere, so that they need not be computed here."""

    def __init__(self, known: frozenset[str]) -> None:
        super().__init__(None)
        self._known = known

    def __contains__(self, key: str) -> bool:
        return key in self._known or super().__contains__(key)


@functools.lru_cache(maxsize=1)
def _cache(where: str) -> Cache:
    """Open a cache once a process: the headers that were read are remembered from model to model."""
    return open_cache(where)


def _one_model(
    where: str, model: str, settings: Settings, only: list[str] | None, datasets: Any, known: frozenset[str]
) -> dict[str, list[ResultRow]]:
    """Compute a model's missing cells on a node, with the one core that the call was given."""
    cells = _Known(known)
    try:
        found = evaluate(
            _cache(where), settings=settings, only=only, models=[model], datasets=datasets, cells=cells, threads=1
        )
    except CloserlookError as error:
        raise type(error)(f"{error} (on {socket.gethostname()})") from None
    if model in found.failures:
        raise CloserlookError(found.failures[model])
    return cells.computed()
