"""Accuracy, error ratio and calibration by visual factor, for every model of a cache.

Every number has its interval: of 40 images it is wide, and decides nothing where it holds the model's overall number.
Calibration is told before and after the temperature that the in-distribution set gives.
Annotations are joined by file name: ImageNet-X (the installed package's files; pip install 'closerlook[imagenet-x]'),
a folder of its layout, or one JSONL file. Without --annotations the dataset's own metadata columns are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analyze.commands.argument_types import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("--annotations", metavar="SOURCE", help="imagenet-x, a folder, or a JSONL file")
    parser.add_argument("--factor-labels", choices=("top", "multi"), help="one factor an image, or all")
    parser.add_argument("--keep-prototypes", action="store_true", help="keep the typical images")
    parser.add_argument("--all-factors", action="store_true", help="all sixteen factors, not the study's ten")
    parser.add_argument("--columns", metavar="NAMES", help="metadata columns to group by, comma-separated")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets (default: the in-distribution sets)")
    parser.add_argument("--bootstrap", type=at_least(0), metavar="N", help="intervals of the ECE too")
    parser.add_argument("--config", type=Path, metavar="TOML", help="options in place of the study's defaults")
    parser.add_argument("-o", "--output", type=Path, help="result table (Parquet); other rows in it stay")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console
    from rich.markup import escape

    import cache_schema
    from analyze.annotations import FACTORS, read_annotations
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.factor_tables import evaluate_factors
    from analyze.results import merge_results
    from analyze.settings import read_settings
    from analyze.tables.factors import factor_table, reasons

    settings = read_settings(args.config)
    changes: dict[str, object] = {}
    if args.factor_labels:
        changes["labels"] = args.factor_labels
    if args.keep_prototypes:
        changes["keep_prototypes"] = True
    if args.all_factors:
        changes["factors"] = list(FACTORS)
    if args.columns:
        changes["columns"] = words(args.columns)
    settings = settings.updated("factors", **changes)
    if args.bootstrap is not None:
        settings = settings.updated("bootstrap", replicates=args.bootstrap)
    annotations = None
    if args.annotations:
        annotations = read_annotations(args.annotations, labels=settings["factors"]["labels"])
    cache = cache_schema.open_cache(args.cache)
    console = Console(stderr=True)
    with model_progress(console) as progress:
        result = evaluate_factors(
            cache,
            annotations,
            settings=settings,
            models=words(args.models),
            datasets=words(args.datasets),
            progress=progress,
        )
    out = Console()
    printed = factor_table(result.table, width=out.width)
    for part in printed:
        out.print(part)
        out.print()
    for reason in reasons(result.table):
        console.print(f"[red]no number[/red] {escape(reason)}", highlight=False, soft_wrap=True)
    if args.output:
        table = merge_results(result.table, args.output, command="factors")
        told = f"{len(result.table)} rows put into {args.output} ({len(table)} rows)"
        console.print(told, highlight=False, soft_wrap=True)
    for model, reason in result.failures.items():
        console.print(f"[red]failed[/red] {model}: {reason}", highlight=False, soft_wrap=True)
    return 1 if result.failures or not printed else 0
