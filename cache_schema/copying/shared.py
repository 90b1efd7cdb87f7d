"""Shared parts of ``push`` and ``pull``: options, choice of stores, the loop and its report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from cache_schema.reading.places.base import Place

STORES_AT_ONCE = 8
FAILURES_IN_A_ROW = 8
"""Stop after so many failures in a row."""


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose stores."""
    parser.add_argument(
        "--only", metavar="summaries|MODEL|DATASET", help="only summary stores, or one model's, or one dataset's"
    )
    parser.add_argument("--summaries", action="store_true", help="only summary stores: what most metrics need")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--dataset", help="only this dataset (without heads, which have no dataset)")


def chosen_names(place: Place, args: argparse.Namespace) -> list[str]:
    """Return the names of the stores that the options choose; read headers only if names are not enough.

    Raises
    ------
    UserError
        No store was chosen.
    """
    from cache_schema.format.naming import slug
    from cache_schema.format.schema import KINDS
    from closerlook_common.errors import CacheError, UserError, nearest

    if args.only:
        _take_only(place, args)
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
                chosen.append(name)  # the copy reports damaged stores
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


def _take_only(place: Place, args: argparse.Namespace) -> None:
    """Set the option that ``--only`` stands for.

    Raises
    ------
    UserError
        It could be a model or a dataset.
    """
    from cache_schema.format.naming import slug
    from closerlook_common.errors import UserError

    if args.only == "summaries":
        args.summaries = True
        return
    names = place.names()
    is_model = any(name.split("/")[0] == slug(args.only) for name in names)
    is_dataset = any(name.rpartition("/")[2].rpartition("-")[0] == slug(args.only) for name in names)
    if is_model and is_dataset:
        raise UserError(f"{args.only!r} is a model and a dataset here: use --model or --dataset")
    setattr(args, "model" if is_model else "dataset", args.only)


def copy_all(
    verb: str, names: Sequence[str], copy: Callable[[str], bool], *, where: str, stop: Callable[[], None]
) -> int:
    """Copy stores, several at a time; one failure does not stop the others.

    Parameters
    ----------
    verb
        For the report: ``pushed`` or ``pulled``.
    names
        Stores to copy.
    copy
        Copies one store; returns False if it exists already.
    where
        Destination, for the error of a full disk.
    stop
        Called on interruption, to end running copies soon.

    Returns
    -------
    int
        Exit code: 1 if any failed.

    Raises
    ------
    UserError
        The disk is full; the remaining stores are not tried.
    """
    from rich.console import Console

    from closerlook_common.console.messages import line
    from closerlook_common.console.progress import Bar
    from closerlook_common.console.terminal import with_name
    from closerlook_common.errors import CacheError, UserError, is_full

    out = Console(highlight=False, soft_wrap=True)
    done = there = failed = in_a_row = 0
    waiting = list(reversed(names))
    running: dict[Future[bool], str] = {}
    with Bar("copying", "stores", len(names)) as progress, ThreadPoolExecutor(STORES_AT_ONCE) as pool:
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
                                f"cannot write to {where}: {error.strerror}; finished copies are kept,"
                                " free some space and run the same command again"
                            ) from error
                        failed, in_a_row = failed + 1, in_a_row + 1
                        out.print(line(with_name(name, error)))
                    else:
                        done, there, in_a_row = done + copied, there + (not copied), 0
                    progress.advance()
        except BaseException:
            stop()
            raise
    out.print(line(f"{counted(done, 'store')} {verb}, {there} there already, {failed} failed"))
    if waiting:
        untried = f"{FAILURES_IN_A_ROW} in a row failed: {len(waiting)} more were not tried"
        out.print(line(f"{untried}; fix the cause and run the same command again"))
    return 1 if failed else 0
