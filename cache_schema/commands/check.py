"""Check every rule of SPEC.md and every digest; exit 1 if anything is wrong."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", help="a cache or one store; of an address every store is fetched temporarily")
    parser.add_argument(
        "--bytes-only",
        action="store_true",
        help="only compare the bytes on disk with the seals: fast, finds every changed byte",
    )
    parser.add_argument("--clean", action="store_true", help="remove the staged files of dead writers")


def run(args: argparse.Namespace) -> int:
    """Check and print what is wrong."""
    from rich.console import Console

    from cache_schema.format.naming import backend_of
    from cache_schema.reading.places.addresses import is_address, meant_address
    from cache_schema.writing.staging import clean_stale, is_live, stages
    from cache_schema.writing.validate import cache_problems, problems, store_paths
    from closerlook_common.console.messages import line
    from closerlook_common.console.progress import Bar
    from closerlook_common.console.terminal import with_name
    from closerlook_common.errors import UserError

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
    with Bar("checking", "stores", len(paths)) as progress:
        for one in progress.track(paths):
            for what in check(one):
                out.print(line(with_name(one, what)))
                wrong += 1
    if is_cache:
        for problem in cache_problems(path):
            out.print(line(f"{problem.path}: {problem.what}"))
            wrong += 1
        if args.clean:
            for stage in clean_stale(path):
                out.print(line(f"{stage}: removed, its writer has exited"))
        for stage in stages(path):
            state = "being written" if is_live(stage) else "its writer has exited; --clean removes it"
            out.print(line(f"{stage}: {state}"))
    out.print(line(f"{counted(len(paths), 'store')} checked, {counted(wrong, 'problem')}"))
    if wrong:
        out.print(
            line("Damaged stores are not repaired: remove them and run the command that made them, or copy them again")
        )
    return 1 if wrong else 0
