"""What a cache holds: models x datasets, each sealed, failed (and why) or missing."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cache", type=Path, metavar="CACHE", help="folder of the stores")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns 1 where something failed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    import cache_schema

    cache = cache_schema.open_cache(args.cache)
    sealed = {
        (store.model.id, store.dataset.id) for kind in ("predictions", "reference") for store in cache.stores(kind)
    }
    failed = {(failure.model, failure.dataset): failure.reason for failure in cache.failures()}
    models = sorted({model for model, _ in (*sealed, *failed)})
    datasets = sorted({dataset for _, dataset in (*sealed, *failed) if dataset})
    table = Table(title=escape(f"{args.cache}: {len(sealed)} stores sealed, {len(failed)} jobs failed"))
    table.add_column("model", overflow="fold")
    for dataset in datasets:
        table.add_column(escape(dataset), justify="center", overflow="fold")
    marks = {True: "[green]sealed[/]", False: "[red]failed[/]", None: "[dim]missing[/]"}
    for model in models:
        whole = (model, "") in failed
        states = [True if (model, d) in sealed else False if whole or (model, d) in failed else None for d in datasets]
        table.add_row(escape(model), *(marks[state] for state in states))
    console = Console()
    console.print(table)
    for (model, dataset), reason in sorted(failed.items()):
        where = f"{model} on {dataset}" if dataset else model
        console.print(f"[red]failed[/] {escape(where)}: {escape(reason)}", soft_wrap=True, highlight=False)
    refused = cache.refused()
    for store in refused:
        console.print(
            f"[red]unusable[/] {escape(store.path.name)}: {escape(store.reason)}", soft_wrap=True, highlight=False
        )
    return int(bool(failed or refused))
