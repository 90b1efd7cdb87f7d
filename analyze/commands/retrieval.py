"""Compute image-to-text and text-to-image recall of every model on every dataset of image-caption pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyze.results import ResultRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.parquet"), help="table for the rows")
    parser.add_argument("--k", default="1,5,10", metavar="LIST", help="as 1,5,10 (the default)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console
    from rich.markup import escape

    import cache_schema
    from analyze.evaluate.retrieval import retrieval_rows
    from analyze.results import merge_results, to_frame
    from cache_schema.errors import UserError

    words = args.k.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--k takes positive whole numbers, as 1,5,10; not {args.k!r}")
    ks = tuple(int(word) for word in words)
    rows, failures = retrieval_rows(cache_schema.open_cache(args.cache), ks)
    if not rows and not failures:
        raise UserError(f"{args.cache} holds no embeddings of image-caption pairs (a dataset with role = 'pairs')")
    table = merge_results(to_frame(rows), args.output, command="retrieval")
    _print(rows, ks)
    console = Console(stderr=True)
    console.print(f"{len(rows)} rows put into {args.output} ({len(table)} rows)", highlight=False)
    for where, reason in failures.items():
        console.print(f"[red]failed[/red] {escape(where)}: {escape(reason)}", highlight=False)
    return int(bool(failures))


def _print(rows: Sequence[ResultRow], ks: Sequence[int]) -> None:
    """Print a table a dataset, narrow enough for any terminal."""
    from rich.console import Console
    from rich.text import Text

    from cache_schema.console.terminal import plain_table

    numbers = {(row.model, row.dataset, row.metric): row.value for row in rows}
    ways = {"image_to_text": "image to text", "text_to_image": "text to image"}
    console = Console()
    for dataset in dict.fromkeys(row.dataset for row in rows):
        shown = plain_table(f"{dataset}: recall@k, ties shared")
        shown.add_column("model", no_wrap=True, overflow="fold")
        for number, (way, k) in enumerate((way, k) for way in ways for k in ks):
            head = f"{ways[way]} @{k}" if number % len(ks) == 0 else f"@{k}"
            shown.add_column(head, justify="right", min_width=5)
        for model in dict.fromkeys(row.model for row in rows if row.dataset == dataset):
            values = [numbers.get((model, dataset, f"{way}_recall@{k}")) for way in ways for k in ks]
            shown.add_row(Text(model), *("" if value is None else f"{value:.3f}" for value in values))
        console.print(shown)
        console.print()
