"""Make one HTML file to explore the results in: it opens from a disk, and asks the network for nothing.

    analyze report results.parquet -o report.html
    analyze report CACHE -o report.html

From a cache, every number is computed first, and models' cards show reliability diagrams.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

LARGE = 5_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze report``."""
    parser.add_argument("source", metavar="RESULTS|CACHE", help="result table (Parquet), or folder of stores")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="default: report.html")
    parser.add_argument("--cache", metavar="CACHE", help="where reliability diagrams for a result table come from")
    parser.add_argument("--title", default="", help="heading of the page")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only these rows of the table; repeatable"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``analyze report``."""
    from analyze.report.pack import pack
    from analyze.report.page import write_report
    from analyze.results import read_results
    from analyze.results.selection import parse_where, select

    source = Path(args.source)
    cache = args.source if source.is_dir() or "://" in args.source else args.cache
    results = _computed(cache) if cache == args.source else read_results(source)
    results = select(results, parse_where(args.where))
    curves = _reliability(cache, results) if cache else None
    title = args.title or f"Results of {results['model'].n_unique():,} models"
    packed = pack(results, title=title, made_from=source.name, curves=curves)
    size = write_report(packed, args.output)
    models, columns = len(packed["models"]["id"]), len(packed["quantities"])
    print(f"wrote {args.output}: {models:,} models, {columns:,} columns of numbers, {size / 1e6:.1f} MB")
    if size > LARGE:
        print("that is a large page; --where metric=... or --where 'score!=...' makes it smaller")
    return 0


def _computed(cache: str) -> pl.DataFrame:
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.evaluate import evaluate

    console = Console(stderr=True)
    with model_progress(console) as advance:
        found = evaluate(cache_schema.open_cache(cache), progress=advance)
    for model, said in found.failures.items():
        console.print(f"failed {model}: {said}", style="red", markup=False)
    return found.table


def _reliability(cache: str, results: pl.DataFrame) -> pl.DataFrame:
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.curves import curves
    from analyze.results.quantities import id_dataset_of

    console = Console(stderr=True)
    opened = cache_schema.open_cache(cache)
    held = {card.id for card in opened.models()}
    with model_progress(console) as advance:
        table, problems = curves(
            opened,
            models=sorted(held & set(results["model"])) or None,
            kinds=["reliability"],
            datasets=[id_dataset_of(results)],
            progress=advance,
        )
    for what, said in problems.items():
        console.print(f"{what}: {said}", style="yellow", markup=False)
    return table
