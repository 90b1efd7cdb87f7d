"""Copy a cache's stores to an address (s3, gs, a mounted folder as file:// ...).

What is there already is not sent again; a copy that was interrupted goes on where it was. Every store is
compared with its seal before it is sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying import add_choice

    parser.add_argument("cache", type=Path, help="the cache on this machine")
    parser.add_argument("address", help="such as s3://bucket/cache")
    parser.add_argument("--read-back", action="store_true", help="fetch what was sent and compare its digests")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Push the stores."""
    from cache_schema.copying import choice, copy_all
    from cache_schema.errors import UserError
    from cache_schema.place import LocalPlace, is_address
    from cache_schema.remote import RemotePlace
    from cache_schema.transfer import chosen_names, push_store, write_index

    if not is_address(args.address):
        raise UserError(
            f"{args.address} is no address such as s3://bucket/cache; for a folder say"
            f" file://{Path(args.address).absolute()} (two caches on this machine: cp -r ONE/. OTHER/ joins them)"
        )
    here, place = LocalPlace(args.cache), RemotePlace(args.address, {})
    names = chosen_names(here, choice(args))
    try:
        return copy_all("pushed", names, lambda name: push_store(here.folder, name, place, read_back=args.read_back))
    finally:
        write_index(place)
