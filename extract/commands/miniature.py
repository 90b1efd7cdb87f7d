"""Build the built-in miniature study: rendered images of ten classes and about two dozen tiny models.

It takes a few minutes on two cores, once. A build that was stopped continues where it stopped. Its numbers mean
nothing outside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from closerlook_common.console.argument_types import whole_number
from closerlook_common.console.messages import sentence
from closerlook_common.console.terminal import printable


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
        "--jobs",
        type=whole_number(1),
        default=None,
        metavar="N",
        help="processes (default: one a processor, at most 8)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a fortieth of the pictures and two short runs, to test the code",
    )


def run(args: argparse.Namespace) -> int:
    """Build it and say where it lies."""
    from closerlook_common.errors import UserError

    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least one process is needed")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file, not a folder")
    from rich.console import Console

    from extract.miniature.progress import build_shown

    build_shown(args.out, Console(stderr=True), quick=args.quick, jobs=args.jobs)
    print(sentence(f"The miniature is in {args.out}: models.txt, datasets.toml, datasets and weights"))
    print(printable(f"Next: extract --model-list {args.out / 'models.txt'} --datasets {args.out / 'datasets.toml'}"))
    return 0
