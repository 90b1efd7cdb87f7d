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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from extract.miniature.build import Step, build

    bar = Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>14}"),
        TimeElapsedColumn(),
    )
    rows: dict[str, TaskID] = {}

    def show(step: Step) -> None:
        if step.task not in rows:
            rows[step.task] = bar.add_task(step.task, total=step.total, rate="")
        rate = f"{step.done / step.seconds:,.0f} images/s" if step.seconds > 0 else "kept"
        bar.update(rows[step.task], completed=step.done, rate=rate)

    with bar:
        build(args.out, quick=args.quick, jobs=args.jobs, progress=show)
    print(
        f"The miniature lies in {args.out}: models.txt, datasets.toml, datasets/, weights/.\n"
        f"Next: extract --model-list {args.out / 'models.txt'} --datasets {args.out / 'datasets.toml'}"
    )
    return 0
