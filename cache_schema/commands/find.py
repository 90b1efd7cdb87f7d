"""Search a list of published caches for stores, by model, dataset or identity.

python -m cache_schema find https://host/index.json --model 'ViT-B-32*' --dataset imagenet-val
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("index", help="a .json file or its address, as publish --index writes it")
    parser.add_argument("--model", default="*", help="wildcards allowed (default: all)")
    parser.add_argument("--dataset", default="*", help="wildcards allowed (default: all)")
    parser.add_argument("--identity", default="", help="beginning of a store's identity")


def run(args: argparse.Namespace) -> int:
    """Print where the stores lie; returns 1 where there are none."""
    from fnmatch import fnmatchcase

    from rich.console import Console

    from cache_schema.copying.registry import Index
    from closerlook_common.console.terminal import as_text, plain_table

    out = Console(soft_wrap=True, highlight=False)
    found = [
        entry
        for entry in Index(args.index).stores()
        if fnmatchcase(entry.model, args.model)
        and fnmatchcase(entry.dataset, args.dataset)
        and entry.identity.startswith(args.identity)
    ]
    if not found:
        out.print("No published store matches.")
        return 1
    table = plain_table("", "kind", "model", "dataset", "identity", "cache")
    for column in table.columns:
        column.justify = "left"
    for entry in found:
        words = (entry.kind, entry.model, entry.dataset, entry.identity[:8], entry.address)
        table.add_row(*map(as_text, words))
    out.print(table)
    return 0
