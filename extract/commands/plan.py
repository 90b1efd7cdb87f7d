"""Estimate a study before it runs: models x datasets, stores done and missing, disk space and device hours."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from closerlook_common.console.argument_types import real_number
from closerlook_common.console.messages import line
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from extract.models.base import Prepared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from extract.commands.run import add_arguments as add_run_arguments

    parser.add_argument(
        "study_file", metavar="STUDY", nargs="?",
        help="a study file, or @closer-look, @holistic; without it, what --model-list, --dataset and"
        " --datasets name",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=real_number(above=0), metavar="N", help="images a second of a model that was not measured yet"
    )
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 1 where a model or dataset cannot be used."""
    from dataclasses import replace

    from rich.console import Console

    from closerlook_common.errors import UserError
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.commands.progress import print_failures
    from extract.commands.request import RunRequest
    from extract.commands.session import plan_of
    from extract.planning.estimate import count_states, estimate, open_if_there
    from extract.planning.plan import MISSING, SEALED, SKIPPED

    if args.study_file and args.study:
        raise UserError(f"extract plan takes one study, not both {args.study_file} and --study {args.study}")
    request = replace(RunRequest.of(args), study=args.study_file or args.study)
    errors = Console(stderr=True)
    plan, options, failed = plan_of(request, errors)
    cost = estimate(
        plan,
        open_if_there(options.cache),
        rate=args.rate,
        feature_bytes=4 if options.features_dtype == "float32" else 2,
        arrays=options.arrays,
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
    named = request.study or "the command line"
    lines = [
        f"{named}: {counted(len(plan.models), 'model')} x {counted(len(plan.datasets), 'dataset')}; in {options.cache}"
        f" {counted(plan.count(SEALED), 'store')} done, {plan.count(MISSING):,} missing;"
        f" heads {heads.count(SEALED):,} done, {heads.count(MISSING):,} missing",
    ]
    if plan.count(MISSING) or MISSING in heads:
        lines += [
            f"to do: {cost.images:,} images x models and {cost.texts:,} texts x models,"
            f" about {cost.gigabytes:,.1f} GB and {_time(cost.hours)} of one device",
            f"basis: {cost.basis}",
        ]
    for text in lines:
        console.print(line(text), soft_wrap=True)
    print_failures(failed, errors)
    return int(bool(failed))


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "less than a minute"


def _progress(models: Sequence[Prepared]) -> Iterable[Prepared]:
    from closerlook_common.console.progress import Bar

    with Bar("counting operations of", "models", len(models)) as bar:
        yield from bar.track(models)
