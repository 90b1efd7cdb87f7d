"""Show what a cache holds as a table, or everything about one store."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", help="a cache or one store, a path or an address")
    parser.add_argument("--kind", help="only stores of this kind: predictions, head, reference, summary, texts")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--dataset", help="only this dataset")
    parser.add_argument("--json", action="store_true", help="the headers as JSON lines, for other programs")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from rich.console import Console

    from cache_schema.format.naming import backend_of
    from cache_schema.reading.cache import open_cache
    from cache_schema.reading.open_stores import open_store
    from cache_schema.reading.places.addresses import is_address

    # In a file or a pipe the table is not cut to the width of a terminal.
    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 250)
    if backend_of(args.path.rstrip("/")) is not None and (is_address(args.path) or Path(args.path).exists()):
        store = open_store(args.path)
        if args.json:
            print(json.dumps(store.header))
        else:
            _print_store(store, out)
        return 0
    cache = open_cache(args.path)
    stores = [store for store in cache.stores(args.kind) if _wanted(store, args)]
    if args.json:
        for store in stores:
            print(json.dumps({"path": store.title, **store.header}))
        return 0
    out.print(_table(stores, out.width))
    _print_rest(cache, stores, out)
    return 0


def _wanted(store: Store, args: argparse.Namespace) -> bool:
    return args.model in (None, store.model_id) and args.dataset in (None, store.dataset_id)


_COLUMNS = (
    "model", "kind", "of", "rows", "invalid", "logits", "features", "MB", "format", "identity", "digest",
)  # fmt: skip
_NUMBERS = ("rows", "invalid", "logits", "features", "MB")
_SPARED = ("digest", "identity", "format", "invalid", "features", "logits")
"""Columns to leave out, in this order, on narrow terminals; ``--json`` has everything."""


def _table(stores: list[Store], width: int) -> Table:
    from closerlook_common.console.terminal import as_text, plain_table

    rows = []
    for store in stores:
        cells = (
            store.model.id,
            store.kind,
            _of(store),
            f"{len(store):,}",
            _invalid(store),
            _width(store, "logits"),
            _width(store, "features"),
            f"{store.n_bytes() / 1e6:.1f}",
            store.path.suffix[1:],
            store.identity[:8],
            store.digest[:8],
        )
        rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) + 2 for name in _COLUMNS}
    shown = list(_COLUMNS)
    for name in _SPARED:
        if sum(widths[kept] for kept in shown) - 2 > width:
            shown.remove(name)
    table = plain_table()
    for name in shown:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(as_text(row[name]) for name in shown))
    return table


def _of(store: Store) -> str:
    from cache_schema.writing.convert import store_title

    variant = store.details.get("variant", "")
    return f"{store_title(store)} ({variant})" if variant else store_title(store)


def _invalid(store: Store) -> str:
    valid = store.details.get("n_valid")
    return "" if valid is None else f"{len(store) - int(valid):,}"


def _width(store: Store, name: str) -> str:
    return str(store.shape(name)[1]) if store.has(name) else ""


def _print_rest(cache: Cache, stores: list[Store], out: Console) -> None:
    from cache_schema.writing.staging import is_live, stages
    from closerlook_common.console.messages import line
    from closerlook_common.console.terminal import counted

    total = sum(store.n_bytes() for store in stores)
    out.print()
    models = len({store.model.id for store in stores})
    out.print(line(f"{counted(len(stores), 'store')} of {counted(models, 'model')}, {total / 1e9:.3f} GB"))
    for bad in cache.refused():
        out.print(line(f"refused: {bad.reason}"))
    for failure in cache.failures():
        job = f"{failure.model} on {failure.dataset}" if failure.dataset else failure.model
        out.print(line(f"failed: {job}: {failure.reason} ({failure.when})"))
    for stage in stages(cache.path) if cache.place.is_local else ():
        state = "being written" if is_live(stage) else "left by a dead writer; 'check --clean' removes it"
        out.print(line(f"staged: {stage}: {state}"))


def _print_store(store: Store, out: Console) -> None:
    from closerlook_common.console.messages import line
    from closerlook_common.console.terminal import as_text, counted

    header = {key: value for key, value in store.header.items() if key != "seal"}
    # Line breaks are those of the indentation: the JSON has escapes for all others.
    for row in json.dumps(header, indent=2, ensure_ascii=False).splitlines():
        out.print(as_text(row))
    seal = store.header["seal"]
    size = f"{store.n_bytes() / 1e6:.2f} MB"
    out.print(line(f"sealed {seal['written']}, {counted(seal['n'], 'row')}, {size}, digest {seal['digest']}"))
    for name, entry in seal["arrays"].items():
        shape = " x ".join(f"{length:,}" for length in entry["shape"])
        out.print(as_text(f"  {name}: {entry['dtype']} {shape}, {entry['digest'][:8]}"))
