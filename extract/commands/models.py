"""List the models that can be named, with group, source, size and licence.

PATTERN is a name with * and ?, or @NAME for one of the lists; without it, the lists and the number of models
in each group are shown.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from extract.zoo.catalogue import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="'resnet50*', 'open_clip:*/laion2b*', @closer-look"
    )
    parser.add_argument("--group", metavar="GROUP", help="only this group of the study")
    parser.add_argument("--source", metavar="SOURCE", help="only this training source")
    parser.add_argument(
        "--no-parameters", action="store_true", help="do not count parameters (they take a while, once)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from cache_schema.errors import UserError, nearest
    from cache_schema.records import GROUPS
    from extract.zoo.catalogue import entries
    from extract.zoo.sources import SOURCES

    for value, known, what in ((args.group, GROUPS, "group"), (args.source, SOURCES, "source")):
        if value is not None and value not in known:
            raise UserError(f"no {what} {value!r}{nearest(value, known)}; the {what}s are {', '.join(known)}")
    everything = list(entries())
    if args.pattern is None and args.group is None and args.source is None:
        _print_overview(everything)
        return 0
    wanted = [
        entry
        for entry in _chosen(everything, args.pattern or "*")
        if args.group in (None, entry.card["group"]) and args.source in (None, entry.card["source"])
    ]
    if not wanted:
        pattern = args.pattern or "*"
        hint = nearest(pattern, [entry.name for entry in everything])
        raise UserError(f"no model matches {pattern!r} in that group and source{hint}")
    _print(wanted, count=not args.no_parameters)
    return 0


def _chosen(everything: list[Entry], pattern: str) -> list[Entry]:
    """Return the entries of a list, or those that a pattern fits (with or without ``library:``)."""
    if pattern.startswith("@"):
        return _of_list(everything, pattern)
    return [
        entry
        for entry in everything
        if fnmatch.fnmatchcase(entry.name, pattern)
        or fnmatch.fnmatchcase(f"{entry.library}:{entry.name}", pattern)
    ]


def _of_list(everything: list[Entry], name: str) -> list[Entry]:
    """Return a list's entries; a line with a local checkpoint is shown by its id, with the card of its
    line.
    """
    from dataclasses import replace

    from extract.model_list import read_model_list

    by_name = {(entry.library, entry.name): entry for entry in everything}
    by_architecture = {(entry.library, entry.architecture): entry for entry in everything}
    out = []
    for spec in read_model_list(name):
        entry = by_name.get((spec.library, spec.name))
        if entry is None:
            alike = by_architecture[spec.library, spec.name]
            entry = replace(alike, name=spec.id, licence="unknown", card={**alike.card, **spec.options})
        out.append(entry)
    return out


def _console() -> Console:
    """Return a console that does not squeeze a table into 80 columns when it is piped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 180)


def _print(wanted: list[Entry], *, count: bool) -> None:
    from rich import box
    from rich.table import Table

    from extract.zoo.catalogue import NON_COMMERCIAL, OPEN

    sizes = _parameters(wanted) if count else [None] * len(wanted)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("model", "group", "family", "source", "parameters", "input", "licence"):
        right = column in ("parameters", "input")
        table.add_column(column, justify="right" if right else "left", no_wrap=column == "model")
    for entry, parameters in zip(wanted, sizes, strict=True):
        closed = entry.licence in NON_COMMERCIAL
        own_terms = not closed and entry.licence not in OPEN and entry.licence != "unknown"
        table.add_row(
            f"{entry.library}:{entry.name}",
            str(entry.card["group"]),
            str(entry.card["family"]),
            str(entry.card["source"]),
            f"{parameters / 1e6:,.1f} M" if parameters else "",
            str(entry.input_size or ""),
            f"{entry.licence} (non-commercial)"
            if closed
            else f"{entry.licence} (own terms)"
            if own_terms
            else entry.licence,
            style="yellow" if closed else None,
        )
    console = _console()
    console.print(table)
    closed_count = sum(entry.licence in NON_COMMERCIAL for entry in wanted)
    console.print(f"{len(wanted):,} models, {closed_count:,} of them not for commercial use.")


def _parameters(wanted: list[Entry]) -> list[int | None]:
    from rich.console import Console
    from rich.progress import track

    from extract.zoo.catalogue import count_parameters

    counted = count_parameters(wanted)
    error_console = Console(stderr=True)
    return list(track(counted, "counting parameters", len(wanted), console=error_console, transient=True))


def _print_overview(everything: list[Entry]) -> None:
    from collections import Counter

    from rich import box
    from rich.table import Table

    from cache_schema.records import GROUPS
    from extract.zoo.lists import LISTS, named_list

    console = _console()
    lists = Table("list", "models", box=box.SIMPLE_HEAD)
    for name in LISTS:
        lists.add_row(f"@{name}", f"{len(named_list(name)):,}")
    console.print(lists)
    counted = Counter((entry.card["group"], entry.library) for entry in everything)
    groups = Table("group", "what it is", "timm", "open_clip", box=box.SIMPLE_HEAD)
    for group, title in GROUPS.items():
        groups.add_row(group, title, f"{counted[group, 'timm']:,}", f"{counted[group, 'open_clip']:,}")
    console.print(groups)
    console.print("'extract models PATTERN', '@LIST', --group and --source list the models themselves.")
