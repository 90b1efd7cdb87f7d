"""Compare models on the same images: paired differences, agreement, error consistency, and what an ensemble scores.

    analyze compare CACHE resnet50.a1_in1k my-clip            differences with intervals and p-values
    analyze compare CACHE 'laion-*' resnet50.a1_in1k          any number of models: every pair, and their ensemble
    analyze compare CACHE resnet50.a1_in1k --detectors msp,knn,vim      OOD detectors, of one model or of several

The ensemble is the mean of the chosen models' probabilities. With two models each difference has an interval and the
p-value of "both means are equal"; with more, the agreement and the error consistency of every pair are shown.

With --detectors the detectors are scored, and on each OOD set every pair is tested on the same images (DeLong's test
for AUROC, the same with the rows' influences for FPR@95). All that are not distinguished from the best are marked,
after Holm over all pairs of the set.
"""

from __future__ import annotations

import argparse

from analyze.commands.argument_types import add_config, add_engine, running_of
from analyze.commands.detector_options import add_detector_options
from analyze.commands.outputs import print_failures
from closerlook_common.console.argument_types import output_file, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="two models or more: ids, or patterns with * and ?")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    parser.add_argument(
        "--bootstrap", type=whole_number(1), default=10_000, metavar="N", help="resamples of small sets (default 10000)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the resamples (default 0)")
    parser.add_argument("--no-ensemble", action="store_true", help="do not read the logits for the ensemble")
    parser.add_argument(
        "--diversity",
        action="store_true",
        help="also how much the members of the ensemble differ: mutual information, ambiguity, disagreement",
    )
    parser.add_argument(
        "--pair-by-row",
        action="store_true",
        help="pair row i with row i where stores hold no image names (default: refuse)",
    )
    parser.add_argument(
        "-o", "--output", type=output_file, metavar="FILE", help="also write every number (.csv or .parquet)"
    )
    add_config(parser)
    add_engine(parser, what="datasets")
    group = parser.add_argument_group("detectors")
    group.add_argument("--detectors", default="", metavar="NAMES", help="compare these OOD detectors: names, or 'all'")
    group.add_argument(
        "--metrics", default="auroc,fpr95_id", metavar="NAMES", help="what is compared (default: auroc,fpr95_id)"
    )
    add_detector_options(group)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.compare import compare_models
    from analyze.evaluate.comparisons import KeptComparisons
    from analyze.settings import read_settings
    from analyze.tables.comparisons import check_output, comparison_tables, write_comparisons
    from closerlook_common.errors import UserError

    if args.detectors:
        return _run_detectors(args)
    if args.diversity and args.no_ensemble:
        raise UserError("--diversity is of the members of the ensemble: remove --no-ensemble")
    if args.output is not None:
        check_output(args.output)
    settings, console = read_settings(args.config), Console(stderr=True)
    cache = cache_schema.open_cache(args.cache)
    with model_progress(console) as progress, KeptComparisons(args.output, fresh=args.fresh) as kept:
        found, problems = compare_models(
            cache,
            args.models,
            kept=kept,
            running=running_of(args, progress),
            settings=settings,
            datasets=words(args.datasets),
            replicates=args.bootstrap,
            seed=args.seed,
            ensemble=not args.no_ensemble,
            diversity=args.diversity,
            pair_by_row=args.pair_by_row,
        )
    if args.output is not None and found:
        write_comparisons(found, args.output)
    out = Console()
    for table in comparison_tables(found):
        out.print(table)
        out.print()
    return print_failures(console, problems, "left out") or int(not found)


def _run_detectors(args: argparse.Namespace) -> int:
    from rich.console import Console

    import cache_schema
    from analyze.commands.detector_options import detector_options, words
    from analyze.evaluate import choose
    from analyze.ood.choices import require_ood_sets
    from analyze.ood.inputs import ood_sets
    from analyze.ood.paired import compare_detectors
    from analyze.ood.scoring import models_of
    from analyze.settings import read_settings
    from analyze.tables.comparisons import check_output
    from analyze.tables.contests import contest_tables, write_contests
    from closerlook_common.errors import UserError

    if args.diversity:
        raise UserError("--diversity is of ensembles of models: leave it out with --detectors")
    if args.engine != "local":
        raise UserError("--detectors are compared on this machine: leave --engine out")
    if args.output is not None:
        check_output(args.output)
    cache = cache_schema.open_cache(args.cache)
    settings = read_settings(args.config)
    options = detector_options(args, cache, settings, models=args.models, explicit=args.detectors != "all")
    require_ood_sets(cache, options)
    known = {name for model in models_of(cache, options) for name in ood_sets(cache, model, options)}
    found, problems = compare_detectors(
        cache,
        options,
        metrics=words(args.metrics),
        datasets=choose(known, list(words(args.datasets)), "OOD dataset") if args.datasets else None,
        pair_by_row=args.pair_by_row,
    )
    if args.output is not None and found:
        write_contests(found, args.output)
    out = Console()
    for table in contest_tables(found):
        out.print(table)
        out.print()
    return print_failures(Console(stderr=True), problems, "left out") or int(not found)
