"""Show or change the role, shift_of and distance of datasets in a cache. No store is rewritten.

Without options all datasets and their roles are printed:

    cache_schema dataset cache
    cache_schema dataset cache imagenet-r --role shift --shift-of imagenet-val
    cache_schema dataset cache textures --role ood --distance far
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from cache_schema.format.dataset_facts import DISTANCES, FACT_ROLES

    parser.add_argument("cache", help="the cache; an address can be shown, not changed")
    parser.add_argument("dataset", nargs="?", help="the dataset to change")
    parser.add_argument("--role", choices=FACT_ROLES, help="in-distribution, shifted, or out-of-distribution")
    parser.add_argument("--shift-of", metavar="ID", help="the in-distribution set that it belongs to ('' for none)")
    parser.add_argument("--distance", choices=(*DISTANCES, ""), help="of an OOD set ('' for none)")


def run(args: argparse.Namespace) -> int:
    """Change a dataset, or print the table; return 1 if a role is unclear."""
    from cache_schema.reading.places.addresses import is_address
    from cache_schema.writing.dataset_roles import change_role
    from closerlook_common.console.messages import sentence
    from closerlook_common.errors import UserError

    given = {"role": args.role, "shift_of": args.shift_of, "distance": args.distance}
    given_facts = {name: value for name, value in given.items() if value is not None}
    if not given_facts:
        return _show(args.cache, args.dataset)
    if args.dataset is None:
        raise UserError("name the dataset to change: python -m cache_schema dataset CACHE DATASET --role ROLE")
    if is_address(args.cache):
        raise UserError(f"{args.cache} is an address: change the cache on this machine, then push it again")
    before, now = change_role(Path(args.cache), args.dataset, given_facts)
    if before == now:
        print(sentence(f"{args.dataset}: {now}, as before"))
    else:
        print(sentence(f"{args.dataset}: {before or 'unclear'} becomes {now}; run 'analyze' again"))
    return 0


def _show(where: str, only: str | None) -> int:
    from rich.console import Console

    from cache_schema.reading.cache import open_cache
    from cache_schema.writing.dataset_roles import unclear_role
    from closerlook_common.console.messages import line
    from closerlook_common.console.terminal import as_text, plain_table
    from closerlook_common.errors import UserError, nearest

    cache = open_cache(where)
    cards = {card.id: card for card in cache.datasets()}
    if only is not None and only not in cards:
        raise UserError(f"{cache.title} has no dataset {only!r}{nearest(only, cards)}")
    roles = cache.roles()
    table = plain_table()
    for name in ("dataset", "role", "shift_of", "distance", "images"):
        table.add_column(name, overflow="fold", justify="right" if name == "images" else "left")
    for name, card in sorted(cards.items()):
        if only is None or only == name:
            facts = roles.facts.get(name)
            role = "not clear" if name in roles.unclear else card.role
            rest = (facts.shift_of, facts.distance) if facts is not None else ("", "")
            images = "" if card.n_images is None else f"{card.n_images:,}"
            table.add_row(*map(as_text, (name, role, *rest, images)))
    out = Console(highlight=False, soft_wrap=True)
    out.print(table)
    problems = [*roles.problems, *(unclear_role(cache.title, name, why) for name, why in roles.unclear.items())]
    for problem in problems:
        out.print(line(problem))
    return 1 if problems else 0
