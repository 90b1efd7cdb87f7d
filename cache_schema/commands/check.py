"""Check every rule of SPEC.md and every digest; exit 1 if anything is wrong."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", help="a cache or one store; of an address every store is fetched whole for a moment")
    parser.add_argument(
        "--bytes-only",
        action="store_true",
        help="compare the bytes on disk with the seals, decode nothing: finds every changed byte, fast",
    )
    parser.add_argument(
        "--clean", action="store_true", help="remove what dead writers left behind (nothing of a live one)"
    )


def run(args: argparse.Namespace) -> int:
    """Check and print what is wrong."""
    from rich.console import Console

    from cache_schema.console.progress import Bar
    from cache_schema.console.terminal import told_of
    from cache_schema.errors import UserError
    from cache_schema.naming import backend_of
    from cache_schema.places.addresses import is_address, meant_address
    from cache_schema.staging import clean_stale, is_live, stages
    from cache_schema.validate import cache_problems, problems, store_paths

    out = Console(highlight=False, soft_wrap=True)
    path = Path(args.path)
    is_remote = is_address(args.path)
    is_cache = not is_remote and backend_of(path) is None
    paths: Sequence[Path | str]
    if is_remote:
        from cache_schema.copying.pull import check_remote, stores_at

        place, paths = stores_at(args.path)
        check: Callable[[Any], list[str]] = functools.partial(check_remote, place, bytes_only=args.bytes_only)
    else:
        if not path.exists():
            raise UserError(f"nothing at {path}{meant_address(args.path)}")
        paths = store_paths(path)
        check = functools.partial(problems, bytes_only=args.bytes_only)
    if not paths and not (is_cache and path.is_dir() and stages(path)):
        raise UserError(f"{args.path} holds no store")
    wrong = 0
    with Bar("checking", "stores") as progress:
        for one in progress.track(paths):
            for what in check(one):
                out.print(told_of(one, what), markup=False)
                wrong += 1
    if is_cache:
        for problem in cache_problems(path):
            out.print(f"{problem.path}: {problem.what}", markup=False)
            wrong += 1
        if args.clean:
            for stage in clean_stale(path):
                out.print(f"{stage}: removed, its writer is gone", markup=False)
        for stage in stages(path):
            state = "a writer is at work" if is_live(stage) else "its writer is gone; --clean removes it"
            out.print(f"{stage}: {state}", markup=False)
    out.print(f"{len(paths)} stores checked, {wrong} problems")
    if wrong:
        out.print("What is damaged is not mended: remove it and run again what made it, or copy it here once more.")
    return 1 if wrong else 0
