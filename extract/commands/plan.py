"""What a study would run: models x datasets, stores done and missing, disk, and device hours with their basis."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extract.models.base import Prepared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from extract.commands.run import add_arguments as add_run_arguments

    parser.add_argument("study_file", metavar="STUDY", help="a study file, or @closer-look, @holistic, @miniature")
    parser.add_argument("--rate", type=float, metavar="N", help="images a second of a model that was not measured yet")
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 1 where a model or dataset cannot be used."""
    from rich.console import Console

    from cache_schema.errors import UserError
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.commands.progress import print_failures
    from extract.commands.session import plan_of
    from extract.planning.estimate import count_states, estimate, open_if_there
    from extract.planning.plan import MISSING, SEALED, SKIPPED

    if args.rate is not None and not args.rate > 0:
        raise UserError(f"--rate takes images a second, more than 0; not {args.rate:g}")
    args.study = args.study_file
    errors = Console(stderr=True)
    plan, options, failed = plan_of(args, errors)
    cost = estimate(
        plan,
        open_if_there(options.cache),
        rate=args.rate,
        feature_bytes=4 if options.features_dtype == "float32" else 2,
        progress=_progress,
    )
    console = wide_console(120)
    rows = []
    for dataset in plan.datasets:
        counts = count_states(job for job in plan.jobs if job.dataset is dataset)
        numbers = [f"{len(dataset):,}", *(f"{counts.get(state, 0):,}" for state in (SEALED, MISSING, SKIPPED))]
        rows.append(Row([dataset.card.id, dataset.card.role, *numbers]))
    titles = ("images", "done", "missing", "skipped")
    print_rows(console, [Column("dataset"), Column("role"), *(Column(title, right=True) for title in titles)], rows)
    heads = [head.state for head in plan.heads]
    lines = [
        f"{args.study}: {len(plan.models):,} models x {len(plan.datasets):,} datasets; in {options.cache}"
        f" {plan.count(SEALED):,} stores are done, {plan.count(MISSING):,} missing;"
        f" heads {heads.count(SEALED):,} done, {heads.count(MISSING):,} missing",
    ]
    if plan.count(MISSING) or MISSING in heads:
        lines += [
            f"to do: {cost.images:,} images x models and {cost.texts:,} texts x models,"
            f" about {cost.gigabytes:,.1f} GB and {_time(cost.hours)} of one device",
            f"basis: {cost.basis}",
        ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    print_failures(failed, errors)
    return int(bool(failed))


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "less than a minute"


def _progress(models: Sequence[Prepared]) -> Iterable[Prepared]:
    from rich.console import Console
    from rich.progress import track

    return track(models, "counting operations", len(models), console=Console(stderr=True), transient=True)
