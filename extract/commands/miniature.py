"""Build the built-in miniature study: rendered pictures of ten classes and some two dozen tiny models.

It takes a few minutes on two cores, once; a build that was stopped goes on where it was. Its numbers mean
nothing outside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("miniature"),
        metavar="DIR",
        help="where it goes (default: ./miniature)",
    )
    parser.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="processes (default: one a processor, at most 8)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a fortieth of the pictures and two short runs, to test the code",
    )


def run(args: argparse.Namespace) -> int:
    """Build it and say where it lies."""
    from cache_schema.errors import UserError

    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least one process is needed")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file, not a folder")
    from rich.console import Console

    from extract.miniature.progress import build_shown

    build_shown(args.out, Console(stderr=True), quick=args.quick, jobs=args.jobs)
    print(
        f"The miniature lies in {args.out}: models.txt, datasets.toml, datasets/, weights/.\n"
        f"Next: extract --model-list {args.out / 'models.txt'} --datasets {args.out / 'datasets.toml'}"
    )
    return 0
