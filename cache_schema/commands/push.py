"""Copy a cache's stores to an address (s3, gs, a mounted folder as file:// ...).

Stores that the address already has are not sent again; interrupted copies are resumed. Every store is compared with its
seal before it is sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying.shared import add_choice

    parser.add_argument("cache", type=Path, help="the cache on this machine")
    parser.add_argument("address", help="such as s3://bucket/cache")
    parser.add_argument("--read-back", action="store_true", help="fetch the copies and compare their digests")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Push the stores."""
    from rich.console import Console

    from cache_schema.copying.push import open_target, push_store, write_index
    from cache_schema.copying.roles import push_roles
    from cache_schema.copying.shared import chosen_names, copy_all
    from cache_schema.reading.places.base import LocalPlace
    from closerlook_common.console.messages import line

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
    problems = push_roles(here.folder, place)
    for problem in problems:
        Console().print(line(f"not pushed: {problem}"), soft_wrap=True)
    write_index(place)
    return code or int(bool(problems))
