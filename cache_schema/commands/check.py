"""Check every rule of SPEC.md and every digest; exit 1 if anything is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", type=Path, help="a cache or one store")
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
    from cache_schema.errors import UserError
    from cache_schema.naming import backend_of
    from cache_schema.staging import clean_stale, is_live, stages
    from cache_schema.validate import cache_problems, problems, store_paths

    if not args.path.exists():
        raise UserError(f"nothing at {args.path}")
    paths = store_paths(args.path)
    is_cache = backend_of(args.path) is None
    if not paths and is_cache:
        raise UserError(f"{args.path} holds no store")
    out = Console(highlight=False, soft_wrap=True)
    wrong = 0
    with Bar("checking", "stores") as progress:
        for path in progress.track(paths):
            for what in problems(path, bytes_only=args.bytes_only):
                out.print(f"{path}: {what}", markup=False)
                wrong += 1
    if is_cache:
        for problem in cache_problems(args.path):
            out.print(f"{problem.path}: {problem.what}", markup=False)
            wrong += 1
        if args.clean:
            for stage in clean_stale(args.path):
                out.print(f"{stage}: removed, its writer is gone", markup=False)
        for stage in stages(args.path):
            state = "a writer is at work" if is_live(stage) else "its writer is gone; --clean removes it"
            out.print(f"{stage}: {state}", markup=False)
    out.print(f"{len(paths)} stores checked, {wrong} problems")
    return 1 if wrong else 0
