"""What ``push`` and ``pull`` share: their options, the choice of stores, the loop with its report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_schema.store import Store


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose stores."""
    parser.add_argument("--summaries", action="store_true", help="only summary stores: what most metrics need")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--dataset", help="only this dataset (a model's heads, which have none, are left out)")


def choice(args: argparse.Namespace) -> Callable[[Store], bool]:
    """Return the function that chooses stores."""

    def chosen(store: Store) -> bool:
        dataset = store.header["dataset"]
        return (
            (not args.summaries or store.kind == "summary")
            and (args.model is None or store.header["model"]["id"] == args.model)
            and (args.dataset is None or (dataset is not None and dataset["id"] == args.dataset))
        )

    return chosen


def copy_all(verb: str, names: Sequence[str], copy: Callable[[str], bool]) -> int:
    """Copy stores one by one; one that fails does not stop the others.

    Parameters
    ----------
    verb
        For the report: ``pushed`` or ``pulled``.
    names
        What to copy.
    copy
        Copies one; False where it is there already.

    Returns
    -------
    int
        Exit code: 1 if any failed.
    """
    from rich.console import Console

    from cache_schema.console.progress import Bar
    from cache_schema.errors import CacheError

    out = Console(highlight=False, soft_wrap=True)
    done = there = failed = 0
    with Bar(verb, "stores") as progress:
        for name in progress.track(names):
            try:
                if copy(name):
                    done += 1
                else:
                    there += 1
            except (CacheError, OSError) as error:
                failed += 1
                out.print(f"{name}: {error}", markup=False)
    out.print(f"{done} stores {verb}, {there} there already, {failed} failed")
    return 1 if failed else 0
