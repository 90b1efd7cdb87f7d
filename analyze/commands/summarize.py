"""Write per-image statistics next to the large stores: a cache small enough for a laptop (about 100 bytes an image).

Every command reads the summaries where the large stores are missing. --to writes the summaries to another folder,
which is a cache too.
"""

from __future__ import annotations

import argparse

from analyze.commands.argument_types import add_config, add_engine, running_of
from analyze.commands.outputs import print_failures
from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("cache", help="folder of the cache")
    parser.add_argument("--to", metavar="DIR", help="cache to write to (default: the same)")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    add_config(parser)
    parser.add_argument("--store", choices=("zarr", "hdf5"), default="zarr", help="format of the summaries")
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.metrics import words
    from analyze.commands.progress import model_progress
    from analyze.evaluate.summarize_cache import summarize_cache
    from analyze.settings import read_settings
    from cache_schema.reading.places.addresses import is_address, meant_address
    from closerlook_common.console.messages import line
    from closerlook_common.errors import UserError

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
            fresh=args.fresh,
            running=running_of(args, progress),
        )
    size = f"{done.n_bytes / 1e6:.1f} MB, {done.n_bytes / max(done.n_images, 1):.0f} bytes an image"
    written = f"{counted(done.written, 'summary', 'summaries')} written ({size}), {done.unchanged} unchanged in {to}"
    console.print(line(written), soft_wrap=True)
    return print_failures(console, done.failures)
