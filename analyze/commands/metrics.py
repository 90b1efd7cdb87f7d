"""Compute all metrics of every model and dataset of a cache, as one long table.

A second run with the same output file computes only what changed. A metric that cannot be computed gives a row with
the reason. The exit code is 1 if a model failed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import add_bootstrap, add_config, add_engine, running_of, with_bootstrap
from analyze.commands.outputs import check_table, print_dropped, print_failures, print_notes
from closerlook_common.console.argument_types import output_file, whole_number
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", nargs="?", help="folder of the cache (default: the study's)")
    parser.add_argument("--study", metavar="TOML|@NAME", help="a study file: its cache, metrics and options")
    parser.add_argument(
        "-o", "--output", type=output_file, default=Path("results.parquet"), help="result table (Parquet)"
    )
    parser.add_argument("--only", metavar="NAMES", help="suites or metrics, comma-separated (accuracy, ece, auroc ...)")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    add_config(parser)
    add_engine(parser)
    add_bootstrap(parser)
    parser.add_argument("--seed", type=whole_number(0), help="seed of the bootstrap")


def words(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.evaluate.gaps import gaps
    from analyze.evaluate.into_table import evaluate_into
    from analyze.evaluate.whole_cache import MetricPlan
    from analyze.settings import read_settings, read_study
    from closerlook_common.console.messages import line, problem
    from closerlook_common.console.terminal import with_name
    from closerlook_common.errors import UserError

    console = Console(stderr=True)
    check_table(args.output)
    settings = read_settings(args.config)
    folder, only = args.cache, words(args.only)
    if args.study is not None:
        if args.config is not None:
            raise UserError("--study and --config both set options of the analysis: give only one of them")
        study = read_study(args.study)
        settings, folder = study.settings, folder or str(study.cache)
        only = only or list(study.metrics) or None
    if folder is None:
        raise UserError("name the cache: analyze metrics CACHE, or a study file with --study")
    cache = cache_schema.open_cache(folder)
    if not cache.stores("predictions") and not cache.stores("summary") and not cache.refused():
        raise UserError(f"{folder} holds no sealed predictions or summaries; 'extract status {folder}' says why")
    plan = MetricPlan(with_bootstrap(args, settings), only, words(args.models), words(args.datasets))
    with model_progress(console) as progress:
        written = evaluate_into(args.output, cache, plan, running_of(args, progress, processes=True), fresh=args.fresh)
    result = written.evaluation
    missing = int((result.table["reason"] != "").sum())
    text = f"{counted(result.computed, 'cell')} computed, {result.reused} unchanged"
    if missing:
        text += f"; {counted(missing, 'number')} cannot be had (column 'reason')"
    console.print(line(f"{counted(len(result.table), 'row')} in {args.output}: {text}"), soft_wrap=True)
    if written.merged is not None:
        print_dropped(console, written.merged, "metrics")
    notes = [*gaps(cache), *_notes(cache, set(result.table["model"]), set(result.table["dataset"])), *written.outdated]
    if result.table.is_empty() and not notes and not result.failures:
        notes.append("none of the chosen metrics is for one of the chosen datasets; --only and --datasets choose them")
    print_notes(console, notes)
    for refused in cache.refused():
        console.print(problem("left out", "red", with_name(refused.path, refused.reason)), soft_wrap=True)
    return print_failures(console, result.failures) or int(bool(cache.refused()))


def _notes(cache: Cache, models: set[str], datasets: set[str]) -> list[str]:
    """Report where numbers shown side by side are not of the same images, and where one of several stores counts."""
    from analyze.reading.sources import sources_of
    from cache_schema.reading.dataset_states import on_other_images, other_images

    chosen = [source.store for source in sources_of(cache) if source.model in models and source.dataset in datasets]
    notes = [other_images(dataset, names) for dataset, names in on_other_images(chosen).items()]
    stores = Counter((store.model.id, store.dataset.id) for store in cache.stores("predictions"))
    twice = sorted({store.dataset.id for store in chosen if stores[store.model.id, store.dataset.id] > 1})
    if twice:
        some = ", ".join(twice[:3]) + (f" and {len(twice) - 3} more" if len(twice) > 3 else "")
        notes.append(f"{some}: of a model's several stores the one written last counts")
    return notes
