"""Make one HTML file to explore the results in: it opens from a disk and needs no network.

    analyze report results.parquet -o report.html
    analyze report CACHE -o report.html

From a cache, every number is computed first, and models' cards show reliability diagrams.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import add_config
from closerlook_common.console.argument_types import output_file
from closerlook_common.console.messages import report, sentence
from closerlook_common.redaction import redact

if TYPE_CHECKING:
    import polars as pl

    from analyze.settings import Settings

LARGE = 5_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze report``."""
    parser.add_argument("source", metavar="RESULTS|CACHE", help="result table (Parquet), or folder of stores")
    parser.add_argument(
        "-o", "--output", type=output_file, default="report.html", metavar="FILE", help="default: report.html"
    )
    parser.add_argument("--cache", metavar="CACHE", help="where reliability diagrams for a result table come from")
    parser.add_argument("--title", default="", help="heading of the page")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only these rows of the table; repeatable"
    )
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Run ``analyze report``."""
    import cache_schema
    from analyze.evaluate.gaps import gaps
    from analyze.report.pack import pack
    from analyze.report.page import write_report
    from analyze.results import read_results
    from analyze.results.quantities import several_id_sets
    from analyze.results.selection import parse_where, select
    from analyze.settings import read_settings, study_defaults
    from analyze.suites.made_with import settings_of
    from closerlook_common.console.terminal import counted
    from closerlook_common.errors import UserError

    settings = read_settings(args.config) if args.config else None
    source = Path(args.source)
    cache = args.source if source.is_dir() or "://" in args.source else args.cache
    results = _computed(cache, settings or study_defaults()) if cache == args.source else read_results(source)
    results = select(results, parse_where(args.where))
    if results.is_empty():
        why = " ".join(gaps(cache_schema.open_cache(cache))) if cache else ""
        raise UserError(f"{args.source} has no number to report. {why}".strip())
    if note := several_id_sets(results, "--where 'dataset!={taken}'"):
        report(note)
    settings = settings_of(results, settings)
    curves = _reliability(cache, results, settings) if cache else None
    title = args.title or f"Results of {counted(results['model'].n_unique(), 'model')}"
    packed = pack(results, title=title, made_from=Path(redact(args.source).partition("?")[0]).name, curves=curves)
    size = write_report(packed, args.output)
    models, columns = len(packed["models"]["id"]), len(packed["quantities"])
    what = f"{counted(models, 'model')}, {counted(columns, 'column')} of numbers, {size / 1e6:.1f} MB"
    print(sentence(f"wrote {args.output}: {what}"))
    if size > LARGE:
        print(sentence("this is a large page; --where metric=... or --where 'score!=...' makes it smaller"))
    return 0


def _computed(cache: str, settings: Settings) -> pl.DataFrame:
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.evaluate import evaluate
    from analyze.evaluate.engine import Running

    with model_progress(Console(stderr=True)) as advance:
        found = evaluate(cache_schema.open_cache(cache), settings=settings, running=Running(progress=advance))
    for model, reason in found.failures.items():
        report(f"failed {model}: {reason}", "red")
    return found.table


def _reliability(cache: str, results: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.curves import curves
    from analyze.results.quantities import id_dataset_of

    opened = cache_schema.open_cache(cache)
    held = {card.id for card in opened.models()}
    with model_progress(Console(stderr=True)) as advance:
        table, problems = curves(
            opened,
            models=sorted(held & set(results["model"])) or None,
            kinds=["reliability"],
            datasets=[id_dataset_of(results)],
            settings=settings,
            progress=advance,
        )
    for what, reason in problems.items():
        report(f"{what}: {reason}", "yellow")
    return table
