"""Copy stores from an address (s3, gs, https ...) into a cache on this machine.

What is here already is not fetched again. Every store is compared with its seal before it is published.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying import add_choice

    parser.add_argument("address", help="such as s3://bucket/cache or https://host/cache")
    parser.add_argument("cache", type=Path, help="the cache on this machine; made if it is not there")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Pull the stores."""
    from cache_schema.copying import choice, copy_all
    from cache_schema.errors import UserError
    from cache_schema.place import is_address
    from cache_schema.remote import RemotePlace
    from cache_schema.staging import clean_stale
    from cache_schema.transfer import chosen_names, pull_store

    if not is_address(args.address):
        raise UserError(
            f"{args.address} is no address such as s3://bucket/cache; for a folder say"
            f" file://{Path(args.address).absolute()} (two caches on this machine: cp -r ONE/. OTHER/ joins them)"
        )
    place = RemotePlace(args.address, {})
    names = chosen_names(place, choice(args))
    if args.cache.is_dir():
        clean_stale(args.cache)
    return copy_all("pulled", names, lambda name: pull_store(place, name, args.cache))
