"""Copy a cache to an address or a folder with a card: models, datasets, licences, digests, how to cite.

    python -m cache_schema publish cache s3://bucket/my-study --title "My study" --index s3://bucket/index.json
    python -m cache_schema publish cache ./my-dataset-repository --title "My study"    # a checkout of a dataset hub

Licences that do not clearly allow the outputs to be redistributed are listed, and nothing is copied until --accept
names them.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.copying.shared import add_choice

    parser.add_argument("cache", type=Path, help="the cache on this machine")
    parser.add_argument("target", help="an address such as s3://bucket/cache, or a folder")
    parser.add_argument("--title", required=True, help="of the card")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="LICENCE", help="this licence allows it; may be repeated"
    )
    parser.add_argument("--index", metavar="FILE|ADDRESS", help="list the cache in this .json file as well")
    parser.add_argument("--read-back", action="store_true", help="fetch what was sent and compare its digests")
    add_choice(parser)


def run(args: argparse.Namespace) -> int:
    """Publish the cache."""
    from rich.console import Console

    from cache_schema.copying.description import DESCRIPTION, README, describe, readme, unclear_licences
    from cache_schema.copying.push import open_target, push_store, write_index
    from cache_schema.copying.registry import Index
    from cache_schema.copying.roles import push_roles
    from cache_schema.copying.shared import chosen_names, copy_all
    from cache_schema.reading.places.addresses import is_address
    from cache_schema.reading.places.base import LocalPlace
    from closerlook_common.console.messages import line
    from closerlook_common.errors import UserError

    out = Console(soft_wrap=True, highlight=False)
    here = LocalPlace(args.cache)
    names = chosen_names(here, args)
    description = describe(here, names, title=args.title, folder=here.folder)
    accepted = {licence.strip().lower() for licence in args.accept}
    unclear = {key: who for key, who in unclear_licences(description).items() if key not in accepted}
    if unclear:
        listed = "; ".join(f"{key!r} ({_few(who)})" for key, who in unclear.items())
        options = " ".join(f"--accept '{key}'" for key in unclear)
        raise UserError(
            f"these licences do not clearly allow publishing outputs: {listed}. Read them, then add {options}, or "
            "choose with --model and --dataset what to publish"
        )
    address = args.target if is_address(args.target) else f"file://{Path(args.target).absolute()}"
    index = Index(args.index) if args.index else None
    if index:
        index.caches()  # a damaged list is found before anything is copied
    place = open_target(address)
    code = copy_all(
        "published",
        names,
        lambda name: push_store(here.folder, name, place, read_back=args.read_back),
        where=place.title,
        stop=place.wire.stop,
    )
    problems = push_roles(here.folder, place)
    for problem in problems:
        out.print(line(f"not published: {problem}"))
    write_index(place)
    if code:
        out.print(line("The card was not written, since stores are missing; run the same command again"))
        return code
    place.wire.write(README, readme(description, address=place.title, accepted=sorted(accepted)).encode())
    place.wire.write(DESCRIPTION, description.to_json())
    if index:
        index.add(place.title, description)
    out.print(line(f"{place.title}: digest {description.digest}"))
    return int(bool(problems))


def _few(names: list[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
