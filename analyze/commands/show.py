"""Print one model's card: what it is, and its results on every dataset of a cache."""

from __future__ import annotations

import argparse
import sys

from analyze.commands.argument_types import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("model", help="id of the model")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.evaluate import evaluate
    from analyze.evaluate.gaps import gaps
    from analyze.reading.sources import sources_of
    from analyze.settings import read_settings
    from analyze.tables.model_page import model_page
    from closerlook_common.console.messages import problem
    from closerlook_common.errors import UserError, nearest

    cache = cache_schema.open_cache(args.cache)
    cards = {card.id: card for card in cache.models()}
    if args.model not in cards:
        few = f"; it has {', '.join(sorted(cards))}" if 0 < len(cards) <= 8 else ""
        raise UserError(f"no model {args.model!r} in {args.cache}{nearest(args.model, cards) or few}")
    if args.model not in {source.model for source in sources_of(cache)}:
        raise UserError(f"no number of {args.model} can be had. {' '.join(gaps(cache))}".strip())
    result = evaluate(cache, settings=read_settings(args.config), models=[args.model])
    # A page that goes to a file or a pipe is not cut to a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for part in model_page(cards[args.model], result.table, width=console.width):
        console.print(part)
        console.print()
    for note in gaps(cache):
        Console(stderr=True).print(problem("note", "yellow", note), soft_wrap=True)
    for reason in result.failures.values():
        Console(stderr=True).print(problem("failed", "red", reason), soft_wrap=True)
    return 1 if result.failures else 0
