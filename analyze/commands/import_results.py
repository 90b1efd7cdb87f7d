"""Read published tables as result rows, alone or behind one's own.

    analyze import-results results-imagenet.csv results-imagenet-a.csv -o published.parquet
    analyze import-results openclip_results.csv --join results.parquet -o joined.parquet

timm's results-*.csv and open_clip's openclip_results.csv are known; any other CSV needs the columns model,
dataset and accuracy (fractions, or --percent), or model, dataset, metric and value; group, source, parameters
... are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze import-results``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="published tables (CSV)")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="result table to write (Parquet)"
    )
    parser.add_argument("--join", metavar="RESULTS", help="result table that the published rows are added to")
    parser.add_argument(
        "--both",
        action="store_true",
        help="keep a published number beside a measured one, as 'MODEL (published)'",
    )
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", "timm", "open_clip", "csv"),
        help="layout of the files (default: by their header)",
    )
    parser.add_argument("--dataset", default="", help="dataset of a file that does not name it")
    parser.add_argument("--percent", action="store_true", help="accuracies of a plain CSV are in percent")


def run(args: argparse.Namespace) -> int:
    """Run ``analyze import-results``."""
    import polars as pl

    from analyze.results import read_results, write_results
    from analyze.results.published import PUBLISHED, join_published, read_published
    from cache_schema.errors import UserError

    parts = []
    for file in args.files:
        parts.append(read_published(file, layout=args.format, dataset=args.dataset, percent=args.percent))
        print(
            f"{file}: {len(parts[-1]):,} numbers of {parts[-1]['model'].n_unique():,} models on"
            f" {', '.join(sorted(parts[-1]['dataset'].unique()))}"
        )
    published = pl.concat(parts)
    doubled = published.filter(pl.struct("model", "dataset", "metric", "subset").is_duplicated())
    if not doubled.is_empty():
        raise UserError(f"{doubled['model'][0]} on {doubled['dataset'][0]} is in two of the files")
    if args.join:
        published, clashes = join_published(read_results(args.join), published, both=args.both)
        if clashes:
            done = "kept beside them as '(published)'" if args.both else "left out (--both keeps them)"
            print(f"{clashes:,} published numbers were also measured here: {done}")
    elif Path(args.output).exists() and (own := _own_rows(read_results(args.output), PUBLISHED)):
        raise UserError(
            f"{args.output} holds {own:,} numbers of your own, which this would replace:"
            f" --join {args.output} keeps them"
        )
    path = write_results(published, args.output)
    print(f"wrote {len(published):,} rows to {path}")
    return 0


def _own_rows(table: pl.DataFrame, prefix: str) -> int:
    """Return how many rows of a table are not published ones."""
    return int((~table["store"].str.starts_with(f"{prefix}:")).sum())
