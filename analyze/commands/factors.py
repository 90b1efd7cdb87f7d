"""Compute accuracy, error ratio and calibration by visual factor, for every model of a cache.

Every number has an interval. With 40 images it is wide: if it contains the model's overall number, it shows no
difference. Calibration is computed before and after temperature scaling on the in-distribution set. Annotations are
joined by file name: ImageNet-X (the files of the extra imagenet-x), a folder with its layout, or one JSONL file.
Without --annotations, the dataset's own metadata columns are used.
"""

from __future__ import annotations

import argparse

from analyze.commands.argument_types import add_bootstrap, add_config, add_engine, running_of, settings_of
from analyze.commands.outputs import check_table, print_added, print_failures, print_notes
from closerlook_common.console.argument_types import output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("--annotations", metavar="SOURCE", help="imagenet-x, a folder, or a JSONL file")
    parser.add_argument("--factor-labels", choices=("top", "multi"), help="one factor an image, or all")
    parser.add_argument("--keep-prototypes", action="store_true", help="keep the typical images")
    parser.add_argument("--all-factors", action="store_true", help="all sixteen factors, not the study's ten")
    parser.add_argument("--columns", metavar="NAMES", help="metadata columns to group by, comma-separated")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets (default: the in-distribution sets)")
    add_bootstrap(parser)
    add_config(parser)
    add_engine(parser)
    parser.add_argument("-o", "--output", type=output_file, help="result table (Parquet); other rows in it stay")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.annotations import FACTORS, read_annotations
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.factor_tables import FactorPlan, evaluate_factors
    from analyze.evaluate.into_table import compute_into
    from analyze.tables.factors import factor_table, quantile_notes, reasons
    from closerlook_common.console.messages import problem

    if args.output:
        check_table(args.output)
    settings = settings_of(args)
    changes: dict[str, object] = {}
    if args.factor_labels:
        changes["labels"] = args.factor_labels
    if args.keep_prototypes:
        changes["keep_prototypes"] = True
    if args.all_factors:
        changes["factors"] = list(FACTORS)
    if args.columns:
        changes["columns"] = list(dict.fromkeys(words(args.columns) or []))
    settings = settings.updated("factors", **changes)
    annotations = None
    if args.annotations:
        annotations = read_annotations(args.annotations, labels=settings["factors"]["labels"])
    cache = cache_schema.open_cache(args.cache)
    console = Console(stderr=True)
    plan = FactorPlan(settings, annotations, words(args.models), words(args.datasets))
    with model_progress(console) as progress:
        written = compute_into(
            args.output,
            "factors",
            lambda cells, running: evaluate_factors(plan, cache, cells, running),
            running_of(args, progress, processes=True),
            fresh=args.fresh,
        )
    result = written.evaluation
    out = Console()
    printed = factor_table(result.table, width=out.width)
    for part in printed:
        out.print(part)
        out.print()
    print_notes(console, quantile_notes(result.table))
    for reason in reasons(result.table):
        console.print(problem("no number", "red", reason), soft_wrap=True)
    print_added(console, written, args.output, "factors")
    return print_failures(console, result.failures) or int(not printed)
