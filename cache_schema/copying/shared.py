"""What ``push`` and ``pull`` share: their options, the choice of stores, the loop with its report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_schema.places.base import Place

STORES_AT_ONCE = 8
FAILURES_IN_A_ROW = 8
"""After so many stores that failed with none between them that did not, the others are not tried."""


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose stores."""
    parser.add_argument("--summaries", action="store_true", help="only summary stores: what most metrics need")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--dataset", help="only this dataset (a model's heads, which have none, are left out)")


def chosen_names(place: Place, args: argparse.Namespace) -> list[str]:
    """Return the names of the stores that the options choose; headers are read only where names do not tell.

    Raises
    ------
    UserError
        There are none.
    """
    from cache_schema.errors import CacheError, UserError, nearest
    from cache_schema.naming import slug
    from cache_schema.schema import KINDS

    names = everything = place.names(slug(args.model) if args.model else "")
    if args.summaries:
        names = [name for name in names if name.split("/")[1] == KINDS["summary"].folder]
    datasets = set()
    if args.dataset:
        place.prepare(names)
        chosen = []
        for name in names:
            try:
                dataset = place.reader(name).header()["dataset"]
            except CacheError:
                chosen.append(name)  # what is damaged is told by the copy
                continue
            datasets.add(dataset["id"] if dataset else "")
            if dataset is not None and dataset["id"] == args.dataset:
                chosen.append(name)
        names = chosen
    if not names:
        if args.model and not everything:
            hint = nearest(slug(args.model), {name.split("/")[0] for name in place.names()})
            raise UserError(f"{place.title} has no model {args.model!r}{hint}")
        if args.dataset:
            hint = nearest(args.dataset, datasets)
            raise UserError(f"{place.title} has no such store of dataset {args.dataset!r}{hint}")
        what = "summary stores; 'analyze summarize' writes them" if args.summaries else "stores"
        raise UserError(f"{place.title} holds no {what}")
    return names


def copy_all(
    verb: str, names: Sequence[str], copy: Callable[[str], bool], *, where: str, stop: Callable[[], None]
) -> int:
    """Copy stores, some at a time; one that fails does not stop the others.

    Parameters
    ----------
    verb
        For the report: ``pushed`` or ``pulled``.
    names
        What to copy.
    copy
        Copies one; False where it is there already.
    where
        What is written to, for the error of a full disk.
    stop
        Called when the user interrupts: lets copies that are under way end soon.

    Returns
    -------
    int
        Exit code: 1 if any failed.

    Raises
    ------
    UserError
        The disk is full; nothing else is tried.
    """
    from rich.console import Console

    from cache_schema.console.progress import Bar
    from cache_schema.console.terminal import told_of
    from cache_schema.errors import CacheError, UserError, is_full

    out = Console(highlight=False, soft_wrap=True)
    done = there = failed = in_a_row = 0
    waiting = list(reversed(names))
    running: dict[Future[bool], str] = {}
    with Bar(verb, "stores", len(names)) as progress, ThreadPoolExecutor(STORES_AT_ONCE) as pool:
        try:
            while running or (waiting and in_a_row < FAILURES_IN_A_ROW):
                while waiting and len(running) < STORES_AT_ONCE and in_a_row < FAILURES_IN_A_ROW:
                    name = waiting.pop()
                    running[pool.submit(copy, name)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    try:
                        copied = future.result()
                    except (CacheError, OSError) as error:
                        if is_full(error):
                            raise UserError(
                                f"cannot write to {where}: {error.strerror}; what was {verb} is safe,"
                                " make room and run the same command again"
                            ) from error
                        failed, in_a_row = failed + 1, in_a_row + 1
                        out.print(told_of(name, error), markup=False)
                    else:
                        done, there, in_a_row = done + copied, there + (not copied), 0
                    progress.advance()
        except BaseException:
            stop()
            raise
    out.print(f"{done} stores {verb}, {there} there already, {failed} failed")
    if waiting:
        told = f"{FAILURES_IN_A_ROW} in a row failed: {len(waiting)} more were not tried"
        out.print(f"{told}; mend that and run the same command again")
    return 1 if failed else 0
