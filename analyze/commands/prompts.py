"""Compute the numbers of zero-shot models under every stored prompt set, and under sets taken together.

Logits come from the stored image embeddings and text heads; no model is run. Rows carry the prompt set in
the column 'head'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analyze.commands.argument_types import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.parquet"), help="table to put the rows into")
    parser.add_argument(
        "--prompts", metavar="SET[,SET+SET...]",
        help="prompt sets, comma-separated; joined by + they are taken together (default: every stored one)",
    )  # fmt: skip
    parser.add_argument("--only", metavar="NAMES", help="suites or metrics, comma-separated")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    parser.add_argument("--config", type=Path, metavar="TOML", help="options in place of the study's defaults")
    parser.add_argument("--bootstrap", type=at_least(0), metavar="N", help="bootstrap intervals from N replicates")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import polars as pl
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate import evaluate
    from analyze.prompted import prompt_sets, prompted_sources
    from analyze.results import conform, merge_results
    from analyze.settings import read_settings
    from cache_schema.errors import UserError

    console = Console(stderr=True)
    cache = cache_schema.open_cache(args.cache)
    settings = read_settings(args.config)
    if args.bootstrap is not None:
        settings = settings.updated("bootstrap", replicates=args.bootstrap)
    names = words(args.prompts) or prompt_sets(cache)
    if not names:
        raise UserError(f"{args.cache} holds no zero-shot head: prompts need a CLIP model and its text heads")
    tables: list[pl.DataFrame] = []
    failures: dict[str, str] = {}
    for name in names:
        sources, missing = prompted_sources(cache, name)
        for model, dataset, reason in missing:
            console.print(f"left out {model} on {dataset} under {name}: {reason}", highlight=False, soft_wrap=True)
        if not sources:
            continue
        with model_progress(console) as progress:
            found = evaluate(
                cache,
                settings=settings,
                only=words(args.only),
                models=words(args.models),
                datasets=words(args.datasets),
                sources=sources,
                progress=progress,
            )
        tables.append(conform(found.table))
        failures |= found.failures
    if not tables:
        raise UserError(f"{args.cache} holds no embeddings that these prompt sets have heads for")
    table = merge_results(pl.concat(tables), args.output, command="prompts")
    rows = sum(len(frame) for frame in tables)
    console.print(
        f"{rows} rows of {len(names)} prompt sets put into {args.output} ({len(table)} rows)", highlight=False
    )
    for model, reason in failures.items():
        console.print(f"[red]failed[/red] {model}: {reason}", highlight=False)
    return int(bool(failures))
