"""Compute image-to-text and text-to-image recall of every model on every dataset of image-caption pairs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.parquet"), help="table for the rows")
    parser.add_argument("--k", default="1,5,10", metavar="LIST", help="as 1,5,10 (the default)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    import cache_schema
    from analyze.results import merge_results, to_frame
    from analyze.retrieval import retrieval_rows
    from cache_schema.errors import UserError

    words = args.k.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--k takes positive whole numbers, as 1,5,10; not {args.k!r}")
    ks = tuple(int(word) for word in words)
    rows, failures = retrieval_rows(cache_schema.open_cache(args.cache), ks)
    if not rows and not failures:
        raise UserError(f"{args.cache} holds no embeddings of image-caption pairs (a dataset with role = 'pairs')")
    table = merge_results(to_frame(rows), args.output, command="retrieval")
    shown = Table(title="recall@k, ties shared")
    shown.add_column("model")
    shown.add_column("dataset")
    names = list(dict.fromkeys(row.metric for row in rows))
    for name in names:
        shown.add_column(name.replace("_recall", ""), justify="right")
    numbers = {(row.model, row.dataset, row.metric): row.value for row in rows}
    for model, dataset in dict.fromkeys((row.model, row.dataset) for row in rows):
        values = [numbers[model, dataset, name] for name in names]
        shown.add_row(escape(model), escape(dataset), *("" if v is None else f"{v:.3f}" for v in values))
    Console().print(shown)
    console = Console(stderr=True)
    console.print(f"{len(rows)} rows put into {args.output} ({len(table)} rows)", highlight=False)
    for where, reason in failures.items():
        console.print(f"[red]failed[/red] {escape(where)}: {escape(reason)}", highlight=False)
    return int(bool(failures))
