"""Compute image-to-text and text-to-image recall of every model on every dataset of image-caption pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import add_config
from analyze.commands.outputs import check_table, print_dropped
from closerlook_common.console.argument_types import output_file, parse_whole
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from analyze.results import ResultRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("-o", "--output", type=output_file, default=Path("results.parquet"), help="table for the rows")
    parser.add_argument("--k", default="1,5,10", metavar="LIST", help="as 1,5,10 (the default)")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.evaluate.retrieval import retrieval_rows
    from analyze.results import merge_results, to_frame
    from analyze.settings import read_settings
    from closerlook_common.console.messages import line, problem
    from closerlook_common.errors import UserError

    ks = tuple(dict.fromkeys(parse_whole(word) or 0 for word in args.k.split(",")))
    if min(ks) < 1:
        raise UserError(f"--k takes positive whole numbers, as 1,5,10; not {args.k!r}")
    check_table(args.output)
    rows, failures = retrieval_rows(cache_schema.open_cache(args.cache), ks, read_settings(args.config))
    if not rows and not failures:
        raise UserError(f"{args.cache} holds no embeddings of image-caption pairs (a dataset with role = 'pairs')")
    merged = merge_results(to_frame(rows), args.output, command="retrieval")
    _print(rows, ks)
    console = Console(stderr=True)
    added = f"{counted(len(rows), 'row')} put into {args.output} ({counted(len(merged.table), 'row')})"
    console.print(line(added), soft_wrap=True)
    print_dropped(console, merged, "retrieval")
    for where, reason in failures.items():
        console.print(problem("failed", "red", f"{where}: {reason}"), soft_wrap=True)
    return int(bool(failures))


def _print(rows: Sequence[ResultRow], ks: Sequence[int]) -> None:
    """Print a table a dataset, narrow enough for any terminal."""
    from rich.console import Console

    from closerlook_common.console.terminal import as_text, plain_table

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
            shown.add_row(as_text(model), *("" if value is None else f"{value:.3f}" for value in values))
        console.print(shown)
        console.print()
