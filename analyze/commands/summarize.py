"""Write per-image statistics beside the big stores: a cache small enough for a laptop (about 100 bytes an image).

Every command takes the summaries where the big stores are not at hand. With --to the summaries go to a folder of
their own, which is a cache too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analyze.commands.argument_types import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("--to", metavar="DIR", help="cache to write to (default: the same)")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("--config", type=Path, metavar="TOML", help="options in place of the study's defaults")
    parser.add_argument("--store", choices=("zarr", "hdf5"), default="zarr", help="format of the summaries")
    parser.add_argument("--jobs", type=at_least(1), help="models at a time (default: number of cores)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.summarize_cache import summarize_cache
    from analyze.settings import read_settings
    from cache_schema.errors import UserError
    from cache_schema.places.addresses import is_address, meant_address

    console = Console(stderr=True)
    to = str(args.to or args.cache)
    if is_address(to) or meant_address(to):
        raise UserError(f"{to}: summaries are written to a folder; say --to FOLDER, then 'python -m cache_schema push'")
    cache = cache_schema.open_cache(args.cache)
    with model_progress(console) as progress:
        done = summarize_cache(
            cache,
            to,
            settings=read_settings(args.config),
            models=words(args.models),
            backend=args.store,
            jobs=args.jobs,
            progress=progress,
        )
    size = f"{done.n_bytes / 1e6:.1f} MB, {done.n_bytes / max(done.n_images, 1):.0f} bytes an image"
    console.print(
        f"{done.written} summaries written ({size}), {done.unchanged} unchanged in {to}",
        highlight=False,
        soft_wrap=True,
    )
    for what, reason in done.failures.items():
        console.print(f"[red]failed[/red] {what}: {reason}", highlight=False, soft_wrap=True)
    return 1 if done.failures else 0
