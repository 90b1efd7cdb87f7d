"""Compute every number of every model and dataset of a cache, as one long table.

Only what changed since the last run into the same file is computed again. A number that cannot be had is a
row with its reason. Exit code 1 where a model failed as a whole.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import at_least

if TYPE_CHECKING:
    from cache_schema.cache import Cache

SAVE_SECONDS = 20.0
"""A run that is killed loses at most this much work, and the model it was at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", nargs="?", help="folder of the cache (default: the study's)")
    parser.add_argument("--study", metavar="TOML|@NAME", help="a study file: its cache, metrics and options")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.parquet"), help="result table (Parquet)")
    parser.add_argument("--only", metavar="NAMES", help="suites or metrics, comma-separated (accuracy, ece, auroc ...)")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    parser.add_argument("--config", type=Path, metavar="TOML", help="options in place of the study's defaults")
    parser.add_argument("--bootstrap", type=at_least(0), metavar="N", help="bootstrap intervals from N replicates")
    parser.add_argument("--seed", type=at_least(0), help="seed of the bootstrap")
    parser.add_argument("--jobs", type=at_least(1), help="models at a time (default: number of cores)")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray spreads the models over a cluster (extra ray)"
    )
    parser.add_argument("--address", default="", metavar="ADDRESS", help="of the Ray cluster (default: the local one)")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")


def words(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console
    from rich.markup import escape

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.evaluate import evaluate
    from analyze.evaluate.cells import Cells, cells_path
    from analyze.evaluate.spread import evaluate_on_cluster
    from analyze.results import merge_results
    from analyze.settings import read_settings, read_study
    from cache_schema.console.terminal import told_of
    from cache_schema.errors import UserError

    console = Console(stderr=True)
    settings = read_settings(args.config)
    folder, only = args.cache, words(args.only)
    if args.study is not None:
        if args.config is not None:
            raise UserError("--study and --config both say how to analyse: give one of them")
        study = read_study(args.study)
        settings, folder = study.settings, folder or str(study.cache)
        only = only or list(study.metrics) or None
    if folder is None:
        raise UserError("name the cache: analyze metrics CACHE, or a study file with --study")
    cache = cache_schema.open_cache(folder)
    if not cache.stores("predictions") and not cache.stores("summary") and not cache.refused():
        raise UserError(f"{folder} holds no sealed predictions or summaries; 'extract status {folder}' says why")
    if args.bootstrap is not None:
        settings = settings.updated("bootstrap", replicates=args.bootstrap)
    if args.seed is not None:
        settings = settings.updated("bootstrap", seed=args.seed)
    path = cells_path(args.output)
    cells = Cells(path)
    if args.fresh:
        cells = Cells(None)
        cells.path = path
    saved = time.monotonic()
    keep: list[str] | None = None
    try:
        with model_progress(console) as show:

            def progress(model: str, done: int, total: int) -> None:
                nonlocal saved
                show(model, done, total)
                if time.monotonic() - saved > SAVE_SECONDS:
                    cells.save()
                    saved = time.monotonic()

            run_all = evaluate
            if args.engine == "ray":
                run_all = functools.partial(evaluate_on_cluster, address=args.address)
            result = run_all(
                cache,
                settings=settings,
                only=only,
                models=words(args.models),
                datasets=words(args.datasets),
                cells=cells,
                jobs=args.jobs,
                progress=progress,
            )
        if not (only or args.models or args.datasets or result.failures):
            keep = result.keys  # a whole run: what it did not need is of stores or options that are gone
    finally:
        # An interrupted run keeps what it has: the next one goes on from there.
        cells.save(keep)
    merge_results(result.table, args.output, command="metrics")
    missing = int((result.table["reason"] != "").sum())
    told = f"{result.computed} cells computed, {result.reused} unchanged"
    if missing:
        told += f"; {missing} numbers cannot be had (column 'reason')"
    console.print(f"{len(result.table)} rows in {args.output}: {told}", highlight=False, soft_wrap=True)
    for note in _notes(cache, set(result.table["model"]), set(result.table["dataset"])):
        console.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False, soft_wrap=True)
    for refused in cache.refused():
        console.print(
            f"[red]left out[/red] {escape(told_of(refused.path, refused.reason))}", highlight=False, soft_wrap=True
        )
    for model, reason in result.failures.items():
        console.print(f"[red]failed[/red] {model}: {reason}", highlight=False, soft_wrap=True)
    return 1 if result.failures or cache.refused() else 0


def _notes(cache: Cache, models: set[str], datasets: set[str]) -> list[str]:
    """Say where numbers that stand side by side are not of the same images, and where one of several stores counts."""
    from analyze.reading.sources import sources_of
    from cache_schema.dataset_states import on_other_images, other_images

    chosen = [source.store for source in sources_of(cache) if source.model in models and source.dataset in datasets]
    notes = [other_images(dataset, names) for dataset, names in on_other_images(chosen).items()]
    stores = Counter((store.model.id, store.dataset.id) for store in cache.stores("predictions"))
    twice = sorted({store.dataset.id for store in chosen if stores[store.model.id, store.dataset.id] > 1})
    if twice:
        some = ", ".join(twice[:3]) + (f" and {len(twice) - 3} more" if len(twice) > 3 else "")
        notes.append(f"{some}: of a model's several stores the one written last counts")
    return notes
