"""Copy a cache's stores to an address (s3, gs, a mounted folder as file:// ...).

What is there already is not sent again; a copy that was interrupted goes on where it was. Every store is
compared with its seal before it is sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying.shared import add_choice

    parser.add_argument("cache", type=Path, help="the cache on this machine")
    parser.add_argument("address", help="such as s3://bucket/cache")
    parser.add_argument("--read-back", action="store_true", help="fetch what was sent and compare its digests")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Push the stores."""
    from cache_schema.copying.push import open_target, push_store, write_index
    from cache_schema.copying.shared import chosen_names, copy_all
    from cache_schema.places.base import LocalPlace

    here = LocalPlace(args.cache)
    names = chosen_names(here, args)
    place = open_target(args.address)
    code = copy_all(
        "pushed",
        names,
        lambda name: push_store(here.folder, name, place, read_back=args.read_back),
        where=place.title,
        stop=place.wire.stop,
    )
    write_index(place)
    return code
