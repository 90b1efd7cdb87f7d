"""Copy stores from an address (s3, gs, https ...) into a cache on this machine.

What is here already is not fetched again. Every store is compared with its seal before it is published.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying.shared import add_choice

    parser.add_argument("address", help="such as s3://bucket/cache or https://host/cache")
    parser.add_argument("cache", type=Path, help="the cache on this machine; made if it is not there")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Pull the stores."""
    from cache_schema.copying.pull import pull_store
    from cache_schema.copying.shared import chosen_names, copy_all
    from cache_schema.errors import UserError
    from cache_schema.places.addresses import is_address, no_address
    from cache_schema.places.remote import RemotePlace
    from cache_schema.staging import clean_stale

    if not is_address(args.address):
        raise no_address(args.address)
    if args.cache.exists() and not args.cache.is_dir():
        raise UserError(f"{args.cache} is no folder")
    place = RemotePlace(args.address)
    code = copy_all(
        "pulled",
        chosen_names(place, args),
        lambda name: pull_store(place, name, args.cache),
        where=str(args.cache),
        stop=place.wire.stop,
    )
    if code == 0 and args.cache.is_dir():
        clean_stale(args.cache)  # not before: an interrupted copy is taken over
    return code
