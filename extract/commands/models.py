"""List models by name, with group, source, size and licence.

PATTERN is a name with * and ?, or @NAME for one of the lists; without it, the lists and the number of models
in each group are printed.
"""

from __future__ import annotations

import argparse
import fnmatch
from typing import TYPE_CHECKING

from closerlook_common.console.messages import line, report
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from extract.libraries import Entry


_SHOWN_SOURCES = 20


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
    from cache_schema.format.model_names.training_sources import SOURCES
    from cache_schema.format.records import GROUPS
    from closerlook_common.errors import UserError, nearest
    from extract.libraries import registry
    from extract.zoo.catalogue import entries

    for value, known, what in ((args.group, GROUPS, "group"), (args.source, SOURCES, "source")):
        if value is not None and value not in known:
            raise UserError(f"no {what} {value!r}{nearest(value, known)}; the {what}s are {', '.join(known)}")
    for problem in registry.every()[1]:
        report(f"extract models: {problem}")
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
        limits = [f"{key} {value}" for key, value in (("group", args.group), ("source", args.source)) if value]
        among = f" in {' and '.join(limits)}" if limits else ""
        raise UserError(f"no model matches {pattern!r}{among}{hint}")
    _print(wanted, count=not args.no_parameters)
    return 0


def _chosen(everything: list[Entry], pattern: str) -> list[Entry]:
    """Return the entries of a list, or those that a pattern fits (with or without ``library:``)."""
    if pattern.startswith("@"):
        return _of_list(everything, pattern)
    return [
        entry
        for entry in everything
        if fnmatch.fnmatchcase(entry.name, pattern) or fnmatch.fnmatchcase(f"{entry.library}:{entry.name}", pattern)
    ]


def _of_list(everything: list[Entry], name: str) -> list[Entry]:
    """Return a list's entries; a line with a local checkpoint is shown by its id, with the card of its
    line.
    """
    from dataclasses import replace

    from extract.zoo.model_list import read_model_list

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


def _print(wanted: list[Entry], *, count: bool) -> None:
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.zoo.catalogue import NON_COMMERCIAL, OPEN

    sizes = _parameters(wanted) if count else [None] * len(wanted)
    columns = [Column("model"), Column("group"), Column("family"), Column("source")]
    columns += [Column("parameters", right=True), Column("input", right=True), Column("licence")]
    rows = []
    for entry, parameters in zip(wanted, sizes, strict=True):
        closed = entry.licence in NON_COMMERCIAL
        own_terms = not closed and entry.licence not in OPEN and entry.licence != "unknown"
        cells = [
            f"{entry.library}:{entry.name}",
            str(entry.card["group"]),
            str(entry.card["family"]),
            str(entry.card["source"]),
            f"{parameters / 1e6:,.1f} M" if parameters else "",
            str(entry.input_size or ""),
            entry.licence + (" (non-commercial)" if closed else " (own terms)" if own_terms else ""),
        ]
        rows.append(Row(cells, "yellow" if closed else ""))
    console = wide_console(180)
    print_rows(console, columns, rows)
    closed_count = sum(entry.licence in NON_COMMERCIAL for entry in wanted)
    console.print(
        line(f"{counted(len(wanted), 'model')}, {closed_count:,} of them not for commercial use"), soft_wrap=True
    )


def _parameters(wanted: list[Entry]) -> list[int | None]:
    from closerlook_common.console.progress import Bar
    from extract.zoo.catalogue import count_parameters

    with Bar("counting parameters of", "models", len(wanted)) as bar:
        return list(bar.track(count_parameters(wanted)))


def _print_overview(everything: list[Entry]) -> None:
    from collections import Counter

    from cache_schema.format.records import GROUPS
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.zoo.lists import list_names, named_list

    console = wide_console(180)
    lists = [Row([f"@{name}", f"{len(named_list(name)):,}"]) for name in list_names()]
    print_rows(console, [Column("list"), Column("models", right=True)], lists)
    counted = Counter((entry.card["group"], entry.library) for entry in everything)
    libraries = list(dict.fromkeys(entry.library for entry in everything))
    groups = [
        Row([group, *(f"{counted[group, library]:,}" for library in libraries), title])
        for group, title in GROUPS.items()
    ]
    columns = [Column("group"), *(Column(library, right=True) for library in libraries)]
    console.print()
    print_rows(console, [*columns, Column("what it is", prose=True)], groups)
    sources = Counter(entry.card["source"] for entry in everything)
    most = ", ".join(f"{name} ({n:,})" for name, n in sources.most_common(_SHOWN_SOURCES))
    console.print()
    console.print(line(f"Sources: {most} and {len(sources) - _SHOWN_SOURCES} more"), soft_wrap=True)
    console.print(
        line("'extract models PATTERN', '@LIST', --group and --source list the models themselves"), soft_wrap=True
    )
