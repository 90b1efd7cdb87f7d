"""Score post-hoc OOD detectors from features, head and a reference of the training set, without loading a model.

    analyze ood CACHE --id imagenet-val --reference imagenet-train --detectors all -o results.parquet
    analyze ood CACHE --id imagenet-val --list          which detectors can run on which models, and why not
    analyze ood --list                                  all detectors, and what each needs

Rows are added to the table, or replace those of the same variant. Detectors that were computed before, from the same
stores and options, are not computed again. Each model's rows are written as soon as they are done. The exit code is 1
if a model failed. Of the settings, only threshold and aupr of [ood] and the confidence level of [bootstrap] apply:
detectors have their own hyper-parameters (--defaults).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import add_config, add_engine, running_of
from analyze.commands.detector_options import add_detector_options, detector_options, words
from analyze.commands.outputs import print_failures, print_notes
from closerlook_common.console.argument_types import output_file
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    import polars as pl

    from analyze.ood.inputs import OodOptions
    from analyze.ood.whole_cache import OodRun
    from cache_schema.reading.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze ood``."""
    parser.add_argument("cache", nargs="?", help="folder of the cache")
    parser.add_argument("--detectors", default="all", metavar="NAMES", help="comma-separated (default: all)")
    add_detector_options(parser)
    parser.add_argument(
        "--full-spectrum",
        metavar="NAMES",
        help="shifted sets that join the in-distribution rows: names, 'all' (default) or 'none'",
    )
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument(
        "-o", "--output", type=output_file, default=Path("results.parquet"), help="result table (Parquet)"
    )
    add_config(parser)
    add_engine(parser, "1")
    text = "only say which detectors can run, and why not; without a cache, which there are"
    parser.add_argument("--list", action="store_true", help=text)


def _options(args: argparse.Namespace, cache: Cache) -> OodOptions:
    from analyze.settings import read_settings

    spectrum = None if args.full_spectrum in (None, "all") else words(args.full_spectrum.replace("none", ""))
    return detector_options(
        args,
        cache,
        read_settings(args.config),
        models=words(args.models),
        full_spectrum=spectrum,
        explicit=args.detectors != "all" and not args.list,
    )


def run(args: argparse.Namespace) -> int:
    """Run ``analyze ood``."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.ood import availability
    from analyze.ood.choices import require_ood_sets
    from analyze.ood.whole_cache import score_cache
    from analyze.results.joining import all_rows
    from analyze.tables.detectors import availability_table, catalogue
    from closerlook_common.console.messages import line
    from closerlook_common.errors import UserError

    if args.cache is None:
        if not args.list:
            raise UserError("name the cache: analyze ood CACHE ('analyze ood --list' lists the detectors)")
        Console().print(catalogue())
        return 0
    cache = cache_schema.open_cache(args.cache)
    options = _options(args, cache)
    if args.list:
        found = availability(cache, options)
        title = f"detectors on {options.id_dataset}: {counted(len(found), 'model')}"
        Console().print(availability_table(title, found, options.detectors))
        return 0
    require_ood_sets(cache, options)
    console = Console(stderr=True)
    with model_progress(console) as progress:
        running = running_of(args, progress)
        run = score_cache(cache, options, output=args.output, fresh=args.fresh, running=running)
    if args.output.exists():
        _print_leaderboard(all_rows(args.output), run, options)
    text = f"{counted(len(run.rows), 'row')} added to {args.output}"
    if run.unchanged:
        text += f"; {run.unchanged} of {counted(len(run.models), 'model')} unchanged"
    if run.missing:
        text += f"; {counted(run.missing, 'detector')} could not run on a model (column 'reason', or --list)"
    if run.dropped:
        text += (
            f"; {counted(run.dropped, 'earlier row')} removed: the roles or distances of their datasets have changed"
        )
    console.print(line(text), soft_wrap=True)
    print_notes(console, run.notes)
    return print_failures(console, run.failures)


def _print_leaderboard(table: pl.DataFrame, run: OodRun, options: OodOptions) -> None:
    """Print the AUROC of the run's detectors on each OOD set, the best first."""
    import sys

    from rich.console import Console

    from analyze.ood import leaderboard
    from analyze.tables.detectors import leaderboard_table
    from closerlook_common.console.messages import line

    models = run.models
    board = leaderboard(table, models, options)
    if board.is_empty():
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    most = max(board["models"].to_list())
    who = models[0] if len(models) == 1 else f"mean over {counted(most, 'model')}"
    best, notes = _marks(table, board, run, options)
    for part in leaderboard_table(f"AUROC on {options.id_dataset}, {who}", board, console.width, best):
        console.print(part)
    left = len(set(options.detectors)) - len(board)
    if left:
        notes.append(f"{counted(left, 'detector')} without a number on every set: --list says why")
    for text in notes:
        console.print(line(text, "dim"), soft_wrap=True)
    console.print()


def _marks(
    table: pl.DataFrame, board: pl.DataFrame, run: OodRun, options: OodOptions
) -> tuple[dict[str, set[str]], list[str]]:
    """Return the detectors of each set that are not distinguished from the best, and by what."""
    from analyze.ood import contests_on, leaders
    from analyze.tables.contests import leaders_of
    from closerlook_common.errors import UserError

    by_intervals = leaders(table, run.models, options)
    if len(board) < 2:
        return by_intervals, []
    try:
        if run.effects is None:
            raise UserError("no table was written")
        found, whole = leaders_of(contests_on(board, run.effects, options), by_intervals)
    except UserError as error:
        return by_intervals, [
            f"bold: not distinguished from the best by their intervals (5 %, Tukey); {error}",
            "tested on the same images: --fresh, or 'analyze compare CACHE MODEL --detectors NAMES'",
        ]
    text = "bold: not distinguished from the best on the same images (DeLong's test, Holm, 5 %)"
    return found, [text if whole else f"{text}; by intervals where a set is too small or too far apart for a test"]
