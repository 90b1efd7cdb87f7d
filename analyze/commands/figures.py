"""Draw the paper's figures, each with its numbers as CSV.

    analyze figures results.parquet -o figures
    analyze figures results.parquet -o figures --only ood,calibration --width cvpr --format pdf,png
    analyze figures CACHE -o figures --models 'ViT-L*' --datasets imagenet-val,textures
    analyze figures results.parquet --cache CACHE -o figures

A result table gives the figures over models; a cache gives those of single models (reliability diagrams,
risk-coverage, ROC curves, score histograms, shared errors). --list names them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.commands.argument_types import add_config
from closerlook_common.console.messages import report, sentence
from closerlook_common.console.terminal import counted, printable

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from analyze.settings import Settings
    from cache_schema.reading.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze figures``."""
    parser.add_argument("source", nargs="?", metavar="RESULTS|CACHE", help="result table (Parquet) or folder of stores")
    parser.add_argument("-o", "--output", default="figures", metavar="DIR", help="where to write (default: figures)")
    parser.add_argument("--only", default="", metavar="NAME,...", help="only these figures")
    parser.add_argument("--format", default="pdf", metavar="pdf,svg,png", help="file formats (default: pdf)")
    parser.add_argument(
        "--width",
        default="neurips",
        metavar="VENUE|INCHES",
        help="width of the page: neurips, iclr, icml, cvpr, eccv, acl, aaai, tmlr, a column of theirs"
        " (cvpr-column ...), or inches (default: neurips)",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only these rows of the result table; repeatable",
    )
    parser.add_argument("--cache", metavar="CACHE", help="with a result table: draw the figures of single models too")
    parser.add_argument(
        "--models",
        default="",
        metavar="ID,...",
        help="of a cache: these models (wildcards; default: all of up to six, else the most accurate of each group)",
    )
    parser.add_argument("--datasets", default="", metavar="ID,...", help="of a cache: these sets (default: all)")
    add_config(parser)
    parser.add_argument("--list", action="store_true", help="name the figures and stop")


def run(args: argparse.Namespace) -> int:
    """Run ``analyze figures``."""
    from analyze.figures import FIGURES
    from analyze.figures.pages import figure_spec, prepare, save
    from analyze.results.quantities import several_id_sets
    from analyze.settings import read_settings, study_defaults
    from analyze.suites.made_with import settings_of
    from closerlook_common.errors import UserError

    if args.list:
        width = max(map(len, FIGURES))
        for name, spec in FIGURES.items():
            print(f"{name:<{width}}  {spec.title}" + (" (from a cache)" if spec.needs == "curves" else ""))
        return 0
    if not args.source:
        raise UserError("name a result table or a cache (or --list)")
    chosen = [name.strip() for name in args.only.split(",") if name.strip()]
    for name in chosen:
        figure_spec(name)
    is_cache = Path(args.source).is_dir() or "://" in args.source
    needs = {"results": None if is_cache else args.source, "curves": args.source if is_cache else args.cache}
    for name in chosen:
        if not needs[FIGURES[name].needs]:
            other = {"results": "a result table (analyze metrics CACHE)", "curves": "a cache (--cache CACHE)"}
            raise UserError(f"figure {name} is drawn from {other[FIGURES[name].needs]}")
    names = chosen or [name for name, spec in FIGURES.items() if needs[spec.needs]]
    formats = [word.strip() for word in args.format.split(",") if word.strip()]
    settings = read_settings(args.config) if args.config else None
    tables: dict[str, pl.DataFrame] = {}
    if needs["results"]:
        tables["results"] = _results(args, str(needs["results"]))
        if note := several_id_sets(tables["results"], "--where 'dataset!={taken}'"):
            report(note)
        # Curves get the bins, the split ... of the numbers in the table.
        settings = settings_of(tables["results"], settings)
    if "curves" in {FIGURES[name].needs for name in names}:
        tables["curves"] = _curves(args, str(needs["curves"]), settings or study_defaults())
    drawn = 0
    for name in names:
        try:
            numbers = prepare(name, tables[FIGURES[name].needs])
        except UserError as error:
            if chosen:
                raise
            report(f"{name}: left out, {error}")
            continue
        written = save(name, numbers, Path(args.output), formats=formats, width=args.width)
        drawn += 1
        print(printable(f"{name}: {', '.join(path.name for path in written)}"))
    if not drawn:
        raise UserError(f"{args.source} has the numbers of no figure")
    print(sentence(f"{counted(drawn, 'figure')} in {args.output}"))
    return 0


def _results(args: argparse.Namespace, path: str) -> pl.DataFrame:
    from analyze.results import read_results
    from analyze.results.selection import parse_where, select

    return select(read_results(path), parse_where(args.where))


def _curves(args: argparse.Namespace, path: str, settings: Settings) -> pl.DataFrame:
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.curves import curves

    console = Console(stderr=True)
    cache = cache_schema.open_cache(path)
    models = [m.strip() for m in args.models.split(",") if m.strip()] or representatives(cache, console, settings)
    with model_progress(console) as advance:
        table, problems = curves(
            cache,
            models=models,
            settings=settings,
            progress=advance,
            datasets=[d.strip() for d in args.datasets.split(",") if d.strip()] or None,
        )
    for what, reason in problems.items():
        report(f"{what}: {reason}", "yellow")
    return table


FEW = 6
"""Up to so many models of a cache are drawn one by one; of more, the most accurate of each group."""


def representatives(cache: Cache, console: Console, settings: Settings) -> list[str] | None:
    """Return a few models; of many the most accurate of each group on the in-distribution set, which are named."""
    import polars as pl

    from analyze.commands.progress import model_progress
    from analyze.evaluate import evaluate
    from analyze.evaluate.engine import Running

    everyone = sorted({store.model.id for kind in ("predictions", "summary") for store in cache.stores(kind)})
    if len(everyone) <= FEW:
        return everyone or None
    with model_progress(console) as advance:
        found = evaluate(cache, settings=settings, only=["top1"], running=Running(progress=advance)).table
    best = (
        found.filter(pl.col("role") == "id", pl.col("value").is_not_null(), pl.col("subset") == "")
        .sort("value", descending=True)
        .unique("group", keep="first", maintain_order=True)
    )
    names = best["model"].unique(maintain_order=True).to_list() or None
    if names:
        report(f"the most accurate model of each group: {', '.join(names)} (others with --models)")
    return names
