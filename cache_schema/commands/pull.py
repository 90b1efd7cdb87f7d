"""Copy stores from an address (s3, gs, https ...) into a cache on this machine.

Stores that the cache already has are not fetched again. Every store is compared with its seal before it is published.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying.shared import add_choice

    parser.add_argument("address", help="such as s3://bucket/cache or https://host/cache")
    parser.add_argument("cache", type=Path, help="the cache on this machine; created if needed")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Pull the stores."""
    from rich.console import Console

    from cache_schema.copying.pull import colliding, pull_store
    from cache_schema.copying.roles import copy_roles
    from cache_schema.copying.shared import chosen_names, copy_all
    from cache_schema.reading.places.addresses import is_address, not_an_address
    from cache_schema.reading.places.remote import RemotePlace
    from cache_schema.writing.staging import clean_stale
    from closerlook_common.console.messages import line
    from closerlook_common.errors import UserError

    if not is_address(args.address):
        raise not_an_address(args.address)
    if args.cache.exists() and not args.cache.is_dir():
        raise UserError(f"{args.cache} is not a folder")
    place = RemotePlace(args.address)
    names = chosen_names(place, args)
    console = Console(soft_wrap=True, highlight=False)
    collisions = colliding(names, args.cache)
    for name, other in sorted(collisions.items()):
        reason = f"differs from {other} only in case or Unicode form, and many file systems keep only one of them"
        console.print(line(f"not pulled: {name} {reason}"))
    code = copy_all(
        "pulled",
        [name for name in names if name not in collisions],
        lambda name: pull_store(place, name, args.cache),
        where=str(args.cache),
        stop=place.wire.stop,
    )
    problems = copy_roles(place, args.cache)
    for problem in problems:
        console.print(line(f"not pulled: {problem}"))
    if code == 0 and args.cache.is_dir():
        clean_stale(args.cache)  # afterwards, so that interrupted copies can be resumed
    return code or int(bool(problems or collisions))
