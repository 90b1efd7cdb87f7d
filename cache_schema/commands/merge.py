"""Merge references of disjoint parts of a training set into the reference of the whole."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "parts", type=Path, nargs="+", metavar="STORE", help="reference stores of one model, made with --arrays unit"
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the whole training set")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="the cache to write to")
    parser.add_argument("--store", choices=("zarr", "hdf5"), default="zarr", help="default: zarr")
    parser.add_argument("--replace", action="store_true", help="replace an existing store of the same parts")


def run(args: argparse.Namespace) -> int:
    """Write the merged reference."""
    from rich.console import Console

    from cache_schema.reading.kinds.references import ReferenceStore
    from cache_schema.reading.open_stores import open_store
    from cache_schema.writing.kinds.merging import merge_references
    from closerlook_common.console.messages import line
    from closerlook_common.console.terminal import counted
    from closerlook_common.errors import UserError

    parts = []
    for path in args.parts:
        if not path.exists():
            raise UserError(f"no store at {path}; 'python -m cache_schema show CACHE' lists the stores of a cache")
        store = open_store(path)
        if not isinstance(store, ReferenceStore):
            raise UserError(f"{path} is a store of kind {store.kind}, not a reference")
        parts.append(store)
    made = merge_references(args.cache, parts, dataset=args.dataset, backend=args.store, overwrite=args.replace)
    text = f"{made.path}: {counted(made.n, 'image')} of {counted(len(parts), 'part')}"
    Console(highlight=False, soft_wrap=True).print(line(text))
    return 0
