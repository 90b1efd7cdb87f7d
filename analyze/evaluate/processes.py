"""Works in processes of this machine: Python's own part of the work, half of it, runs on one core a process.

Threads share what is loaded and cost nothing to start, so that a run begins with them and goes on in processes where
much is left to do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from analyze.evaluate.engine import Ledger, Running, Work, in_threads, shares_of
from closerlook_common.child_processes import begin_child
from closerlook_common.errors import CloserlookError

TRIAL_SECONDS = 5.0
"""How long a run is tried with threads before its rest may go to processes."""
LEAST_SECONDS = 15.0
"""Estimated seconds of threads for the rest below which it stays with them: processes take a second or two to start."""


def run_spread(
    works: Sequence[Work],
    ledger: Ledger,
    running: Running,
    function: Callable[..., Any],
    call: Callable[[Work], tuple[Any, ...]],
    take: Callable[[Work, Any], None],
) -> None:
    """Carry out works: with threads first, and what is left after some seconds in processes where that is much.

    Parameters
    ----------
    works, ledger, running
        What there is to do, what takes note of it, and how it goes.
    function
        Computes a work in a process; at the top of a module.
    call
        Work -> arguments of ``function``.
    take
        Takes the answer of ``function``.
    """
    jobs, threads = shares_of(running, len(works))
    known = [work for work in works if all(cell.key in ledger.kept for cell in work.cells())]
    in_threads(known, ledger, jobs, threads)  # these take no time, and tell nothing of the others
    names = {work.name for work in known}
    begun = time.monotonic()

    def enough(done: int, left: int) -> bool:
        passed = time.monotonic() - begun
        return jobs > 1 and done > 0 and passed >= TRIAL_SECONDS and left * passed / done >= LEAST_SECONDS

    left = in_threads([work for work in works if work.name not in names], ledger, jobs, threads, enough)
    if not left:
        return
    with contextlib.closing(_answers(left, min(jobs, len(left)), function, call)) as answers:
        for work, found in answers:
            with ledger.counting(work):
                if isinstance(found, BrokenProcessPool):
                    raise CloserlookError(
                        "the process that computed it ended, perhaps for lack of memory: try `jobs` 1"
                    )
                if isinstance(found, BaseException):
                    raise found
                take(work, found)


def _answers(
    works: Sequence[Work], jobs: int, function: Callable[..., Any], call: Callable[[Work], tuple[Any, ...]]
) -> Generator[tuple[Work, Any]]:
    """Yield what processes computed, or the error, as it comes."""
    calls = [call(work) for work in works]
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    with ProcessPoolExecutor(jobs, context, begin_child) as pool:
        pending: dict[Future[Any], Work] = {}
        try:
            for work, words in zip(works, calls, strict=True):
                try:
                    pending[pool.submit(function, *words)] = work
                except BrokenProcessPool as broken:  # a process ended meanwhile
                    yield work, broken
            for future in as_completed(pending):
                error = future.exception()
                yield pending[future], future.result() if error is None else error
        except BaseException:  # their works are not waited for
            for process in multiprocessing.active_children():
                process.terminate()
            raise
