"""Read published tables as result rows, alone or joined to your own.

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

from analyze.commands.argument_types import add_config
from closerlook_common.console.argument_types import output_file
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    import polars as pl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze import-results``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="published tables (CSV)")
    parser.add_argument(
        "-o", "--output", type=output_file, required=True, metavar="FILE", help="result table to write (Parquet)"
    )
    parser.add_argument("--join", metavar="RESULTS", help="result table that the published rows are added to")
    parser.add_argument(
        "--both",
        action="store_true",
        help="keep a published number next to a measured one, as 'MODEL (published)'",
    )
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", "timm", "open_clip", "csv"),
        help="layout of the files (default: by their header)",
    )
    parser.add_argument("--dataset", default="", help="dataset of a file that does not name it")
    parser.add_argument("--percent", action="store_true", help="accuracies of a plain CSV are in percent")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Run ``analyze import-results``."""
    import polars as pl

    from analyze.results import read_results
    from analyze.results.joining import all_rows, write_all
    from analyze.results.published import PUBLISHED, join_published, read_published
    from analyze.settings import read_settings
    from closerlook_common.console.messages import sentence
    from closerlook_common.errors import UserError

    parts = []
    level = read_settings(args.config)["accuracy"]["confidence_level"]
    for file in args.files:
        parts.append(read_published(file, layout=args.format, dataset=args.dataset, percent=args.percent, level=level))
        what = f"{counted(len(parts[-1]), 'number')} of {counted(parts[-1]['model'].n_unique(), 'model')}"
        print(sentence(f"{file}: {what} on {', '.join(sorted(parts[-1]['dataset'].unique()))}"))
    published = pl.concat(parts)
    doubled = published.filter(pl.struct("model", "dataset", "metric", "subset").is_duplicated())
    if not doubled.is_empty():
        raise UserError(f"{doubled['model'][0]} on {doubled['dataset'][0]} is in two of the files")
    if args.join:
        published, clashes = join_published(all_rows(Path(args.join)), published, both=args.both)
        if clashes:
            done = "kept next to them as '(published)'" if args.both else "left out (--both keeps them)"
            print(sentence(f"measured here as well: {counted(clashes, 'published number')}, {done}"))
    elif Path(args.output).exists() and (own := _own_rows(read_results(args.output), PUBLISHED)):
        raise UserError(
            f"{args.output} holds {counted(own, 'number')} of your own, which this would replace:"
            f" --join {args.output} keeps them"
        )
    shown = write_all(published, args.output)
    print(sentence(f"wrote {counted(len(shown), 'row')} to {args.output}"))
    return 0


def _own_rows(table: pl.DataFrame, prefix: str) -> int:
    """Return how many rows of a table are not published ones."""
    return int((~table["store"].str.starts_with(f"{prefix}:")).sum())
