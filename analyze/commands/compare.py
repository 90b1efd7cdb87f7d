"""Compare models on the same images: paired differences, agreement, error consistency, and what an ensemble scores.

    analyze compare CACHE resnet50.a1_in1k my-clip            differences with intervals and p-values
    analyze compare CACHE 'laion-*' resnet50.a1_in1k          any number of models: every pair, and their ensemble

The ensemble is the mean of the chosen models' probabilities. With two models each difference has a bootstrap interval
and a permutation p-value; with more, the agreement and the error consistency of every pair are shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analyze.commands.argument_types import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="two models or more: ids, or patterns with * and ?")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    parser.add_argument("--bootstrap", type=at_least(1), default=1000, metavar="N", help="resamples (default 1000)")
    parser.add_argument(
        "--permutations", type=at_least(1), default=10_000, metavar="N", help="sign flips (default 10000)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of both (default 0)")
    parser.add_argument("--no-ensemble", action="store_true", help="do not read the logits for the ensemble")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write every number (.csv or .parquet)")
    parser.add_argument("--config", type=Path, metavar="TOML", help="options in place of the study's defaults")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.evaluate.compare import compare_models
    from analyze.settings import read_settings
    from analyze.tables.comparisons import check_output, comparison_tables, write_comparisons

    if args.output is not None:
        check_output(args.output)
    found, problems = compare_models(
        cache_schema.open_cache(args.cache),
        args.models,
        settings=read_settings(args.config),
        datasets=words(args.datasets),
        replicates=args.bootstrap,
        permutations=args.permutations,
        seed=args.seed,
        ensemble=not args.no_ensemble,
    )
    if args.output is not None and found:
        write_comparisons(found, args.output)
    console = Console()
    for table in comparison_tables(found):
        console.print(table)
        console.print()
    for dataset, reason in problems.items():
        Console(stderr=True).print(f"[red]left out[/red] {dataset}: {reason}", highlight=False, soft_wrap=True)
    return 0 if found and not problems else 1
