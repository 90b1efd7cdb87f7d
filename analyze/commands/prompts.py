"""Compute the numbers of zero-shot models under every stored prompt set, and under sets taken together.

Logits come from the stored image embeddings and text heads; no model is run. Rows carry the prompt set in
the column 'head', with the templates and their weights where these are chosen ('openai-80:0-4 7:zpe').
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from analyze.commands.argument_types import add_bootstrap, add_config, add_engine, running_of, settings_of
from analyze.commands.outputs import check_table, print_added, print_failures
from closerlook_common.console.argument_types import output_file
from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument(
        "-o", "--output", type=output_file, default=Path("results.parquet"), help="table to put the rows into"
    )
    parser.add_argument(
        "--prompts", metavar="SET[,SET+SET...]",
        help="prompt sets, comma-separated; joined by + they are taken together (default: every stored one)",
    )  # fmt: skip
    parser.add_argument(
        "--templates", action="append", default=[], metavar="WHICH",
        help="only these templates: numbers from 0 (0-4,7), or a pattern of their text ('*photo*'); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--without", action="append", default=[], metavar="WHICH", help="all templates but these; may be repeated"
    )
    parser.add_argument(
        "--weights", metavar="NAME[,NAME...]",
        help="how templates are taken together; head (default): the mean embedding of each class at unit length;"
        " logits: the mean of their logits; zpe: their mean with the weights of zero-shot prompt ensembling, from the"
        " images alone",
    )  # fmt: skip
    parser.add_argument(
        "--pretraining", default="", metavar="DATASET",
        help="with --weights zpe: the set whose mean logits are subtracted besides those of the images",
    )  # fmt: skip
    parser.add_argument("--only", metavar="NAMES", help="suites or metrics, comma-separated")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--datasets", metavar="PATTERNS", help="datasets, comma-separated, * and ? allowed")
    add_config(parser)
    add_engine(parser)
    add_bootstrap(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.into_table import evaluate_into
    from analyze.evaluate.whole_cache import MetricPlan
    from analyze.prompted import TemplateChoice, prompt_sets, prompted_sources
    from closerlook_common.console.messages import problem
    from closerlook_common.errors import UserError

    console = Console(stderr=True)
    check_table(args.output)
    cache = cache_schema.open_cache(args.cache)
    settings = settings_of(args)
    names = tuple(dict.fromkeys(words(args.prompts) or prompt_sets(cache)))
    if not names:
        raise UserError(f"{args.cache} holds no zero-shot head: prompts need a CLIP model and its text heads")
    weights = tuple(dict.fromkeys(words(args.weights) or ["head"]))
    if args.pretraining and "zpe" not in weights:
        raise UserError("--pretraining is for --weights zpe: nothing else subtracts its logits")
    choices = tuple(
        TemplateChoice(tuple(args.templates), tuple(args.without), name, args.pretraining if name == "zpe" else "")
        for name in weights
    )
    some, reported = False, set()
    for name, choice in itertools.product(names, choices):
        sources, missing = prompted_sources(cache, name, choice)
        some = some or bool(sources)
        for model, dataset, reason in missing:
            left_out = f"{model} on {dataset} under {name}: {reason}"
            if left_out not in reported:
                console.print(problem("left out", "yellow", left_out), soft_wrap=True)
            reported.add(left_out)
    if not some:
        raise UserError(f"{args.cache} holds no embeddings that these prompt sets have heads for")
    plan = MetricPlan(settings, words(args.only), words(args.models), words(args.datasets), names, choices)
    with model_progress(console) as progress:
        written = evaluate_into(args.output, cache, plan, running_of(args, progress, processes=True), fresh=args.fresh)
    print_added(console, written, args.output, "prompts", f" of {counted(len(names), 'prompt set')}")
    return print_failures(console, written.evaluation.failures)
