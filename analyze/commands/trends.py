"""Compute correlations, fits and effective robustness over models, overall and by group.

    analyze trends results.parquet
    analyze trends results.parquet --y ece@imagenet-r[calibrator=temperature] --y auroc@textures --by source
        -o trends
    analyze trends results.parquet --y top1@imagenet-a --baseline group=supervised-in1k --split 0.7613
    analyze trends results.parquet --cache CACHE          # agreement on the line, from every model's predictions
    analyze trends results.parquet --dependence none      # ordinary statistics: models taken as independent

Models of one family (backbone and training source by default) are not independent: intervals and p-values are over
families. Models at chance are left out of fits; sets with fewer classes are compared with the accuracy on the same
classes. A quantity is METRIC@DATASET[variant=value,...]. Without --y, every number is compared with the in-distribution
accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from closerlook_common.console.argument_types import real_number, whole_number
from closerlook_common.console.messages import line, report

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze trends``."""
    parser.add_argument("results", metavar="RESULTS", help="result table (Parquet)")
    parser.add_argument("--x", default="", metavar="QUANTITY", help="default: top1 of the in-distribution set")
    parser.add_argument(
        "--y", action="append", default=[], metavar="QUANTITY", help="repeatable; default: every number"
    )
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only these rows; repeatable")
    parser.add_argument(
        "--by",
        default="group",
        metavar="COLUMN",
        help="also within each group, source or family; '' for none (default: group)",
    )
    parser.add_argument(
        "--scale",
        default="probit",
        choices=("probit", "logit", "linear"),
        help="axis for accuracies (default: probit; other metrics stay linear)",
    )
    parser.add_argument("--method", default="huber", choices=("huber", "ols", "theil-sen"), help="fit (default: huber)")
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="population of the effective-robustness line (default: group=supervised-in1k)",
    )
    parser.add_argument(
        "--split",
        type=real_number(),
        metavar="ACCURACY",
        help="fit the baseline in two pieces at this x (the authors' choice for ImageNet-A)",
    )
    parser.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="CHANGED=STANDARD",
        help="relative robustness: a model and the same one without the intervention; repeatable",
    )
    parser.add_argument(
        "--cache",
        metavar="CACHE",
        help="where predictions lie: also agreement on the line, accuracy under shift without its labels",
    )
    parser.add_argument(
        "--pair-by-row",
        action="store_true",
        help="with --cache: pair row i with row i where stores hold no image names",
    )
    parser.add_argument(
        "--dependence",
        default="backbone",
        metavar="LEVEL",
        help="what makes models a family, whose members are not independent: backbone, run or checkpoint of the"
        " lineage, a column of the cards, or none for ordinary intervals and p-values (default: backbone)",
    )
    parser.add_argument(
        "--families", metavar="FILE", help="CSV with columns model and family, in place of the models' lineage"
    )
    parser.add_argument(
        "--all-classes",
        action="store_true",
        help="set ImageNet-A, -R and others of fewer classes against the accuracy on all classes (default: the same)",
    )
    parser.add_argument(
        "--shared-images",
        action="store_true",
        help="set a factor against the accuracy on all images (default: on those without the factor)",
    )
    parser.add_argument(
        "--keep-chance",
        action="store_true",
        help="keep models in fits whose in-distribution accuracy is not above chance (exact binomial test)",
    )
    parser.add_argument(
        "--chance-level",
        type=real_number(above=0, most=0.5),
        default=0.01,
        metavar="P",
        help="of that test (default: 0.01)",
    )
    parser.add_argument(
        "--classes",
        type=whole_number(2),
        metavar="C",
        help="classes of the in-distribution set, where the table lacks it",
    )
    parser.add_argument(
        "--keep-built-against",
        action="store_true",
        help="keep models in a set's fits that the set was built against (ResNet-50 and ImageNet-A)",
    )
    parser.add_argument(
        "--bootstrap",
        type=whole_number(1),
        default=1999,
        metavar="N",
        help="signs of families drawn for a p-value (default: 1999)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of these draws (default: 0)")
    parser.add_argument("-o", "--output", metavar="DIR", help="write the tables there as CSV")


def run(args: argparse.Namespace) -> int:
    """Run ``analyze trends``."""
    import polars as pl
    from rich.console import Console

    from analyze.results import read_results
    from analyze.results.csv_text import write_csv
    from analyze.results.quantities import id_datasets_of, looked_up_once, several_id_sets
    from analyze.results.selection import parse_where, select
    from analyze.tables.trends import left_out_lines
    from analyze.trends.families import with_families
    from analyze.trends.over_models import TrendOptions, pairs_of, trend_tables
    from analyze.trends.pairs import Choices
    from analyze.trends.robustness import BASELINE
    from cache_schema.format.model_names.lineages import LEVELS
    from closerlook_common.console.progress import Bar
    from closerlook_common.console.terminal import counted

    results = select(read_results(args.results), parse_where(args.where))
    if args.families:
        results = with_families(results, args.families)
    with looked_up_once(results):
        pairs = pairs_of(results, args.x, args.y)
        if not args.x and (note := several_id_sets(results, "--x top1@{other}")):
            report(note, "yellow")
        options = TrendOptions(
            by=args.by,
            scale=args.scale,
            method=args.method,
            baseline=parse_where(args.baseline) if args.baseline else dict(BASELINE),
            split=args.split,
            changed=parse_pairs(args.pair),
            bootstrap=args.bootstrap,
            seed=args.seed,
            choices=Choices(
                dependence=args.dependence,
                same_classes=not args.all_classes,
                other_images=not args.shared_images,
                keep_chance=args.keep_chance,
                chance_level=args.chance_level,
                classes=dict.fromkeys(id_datasets_of(results)[:1], args.classes) if args.classes else {},
                keep_built_against=args.keep_built_against,
            ),
        )
        with Bar("computing trends of", "pairs of numbers", len(pairs)) as bar:
            written, problem = trend_tables(results, bar.track(pairs), options)
    incomplete = False
    if args.cache:
        lines, incomplete = _agreement(args.cache, sorted(results["model"].unique()), pair_by_row=args.pair_by_row)
        written |= lines
    console = Console()
    for drawn in _drawn(written, args.by or "group", console.width):
        console.print(drawn)
        console.print()
    for text in left_out_lines(written["marked_models"]) if "marked_models" in written else ():
        console.print(line(text, "yellow"), soft_wrap=True)
    unknown = results.filter(pl.col("lineage") == "")["model"].n_unique()
    if unknown and args.dependence in LEVELS:
        text = f"{unknown} of {counted(results['model'].n_unique(), 'model')} without lineage, counted as independent"
        more = "--families FILE (columns model, family), --dependence COLUMN, or lineage= in the model list"
        console.print(line(f"{text}: {more}", "dim"), soft_wrap=True)
    if problem:
        console.print(line(problem, "yellow"), soft_wrap=True)
    if args.output:
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in written.items():
            write_csv(frame, folder / f"{name}.csv")
        console.print(line(f"wrote {', '.join(f'{n}.csv' for n in written)} to {folder}"), soft_wrap=True)
    return 1 if incomplete else 0


def _drawn(written: dict[str, pl.DataFrame], by: str, width: int) -> Iterator[Table]:
    from analyze.tables.trends import PLAIN_TABLES, correlation_tables, medians_tables, plain

    yield from correlation_tables(written["correlations"], width=width)
    if "robustness_medians" in written:
        yield from medians_tables(written["robustness_medians"], by, width=width)
    for name, title in PLAIN_TABLES.items():
        if name in written:
            yield plain(written[name], title)


def parse_pairs(words: list[str]) -> dict[str, str]:
    """Read ``CHANGED=STANDARD`` words: model with an intervention -> the model without."""
    from closerlook_common.errors import UserError

    pairs = {}
    for word in words:
        changed, equals, standard = (part.strip() for part in word.partition("="))
        if not (changed and equals and standard):
            raise UserError(f"--pair {word!r}: give two models, CHANGED=STANDARD")
        pairs[changed] = standard
    return pairs


def _agreement(cache: str, models: list[str], *, pair_by_row: bool) -> tuple[dict[str, pl.DataFrame], bool]:
    """Return the tables of agreement on the line, and whether a model or a dataset was left out."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.trends.over_models import agreement_tables

    console = Console(stderr=True)
    opened = cache_schema.open_cache(cache)
    with model_progress(console) as advance:
        tables, problems = agreement_tables(opened, models, pair_by_row=pair_by_row, progress=advance)
    for problem in problems:
        console.print(line(problem, "yellow"), soft_wrap=True)
    return tables, bool(problems)
