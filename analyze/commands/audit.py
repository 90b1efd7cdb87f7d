"""List what a reviewer would object to in a result table, one line each with the fix.

    analyze audit results.parquet                      what the table shows
    analyze audit results.parquet --cache CACHE        and what only the stores show
    analyze audit results.parquet --only at-chance,near-copies
    analyze audit results.parquet -o findings.csv      also as a table: kind, found, fix

Each line is 'KIND: what was found. Fix: what to do.', on standard output; the number of findings is printed on standard
error. The exit code is 0, or 1 with --strict if there is a finding, or 2 if the table cannot be read.
"""

from __future__ import annotations

import argparse

from closerlook_common.console.argument_types import output_file
from closerlook_common.console.terminal import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("results", help="result table (.parquet or .csv)")
    parser.add_argument("--cache", metavar="CACHE", help="cache that the table was made from")
    parser.add_argument("--only", metavar="CHECKS", help="names of checks, comma-separated (default: all)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where there is a finding")
    parser.add_argument("-o", "--output", type=output_file, metavar="FILE", help="also write the findings (.csv)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import polars as pl
    from rich.console import Console

    import cache_schema
    from analyze.audit import audit
    from analyze.commands.metrics import words
    from analyze.results import read_results
    from analyze.results.csv_text import write_csv
    from closerlook_common.console.messages import report
    from closerlook_common.console.terminal import printable
    from closerlook_common.errors import UserError
    from closerlook_common.user_cache import replaced_whole

    if args.output is not None and args.output.suffix.lower() != ".csv":
        raise UserError(f"findings are written as .csv, not to {args.output}")
    table = read_results(args.results)
    cache = cache_schema.open_cache(args.cache) if args.cache else None
    found = audit(table, cache, only=words(args.only) or ())
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    for finding in found:
        console.print(printable(finding))
    if args.output is not None:
        columns = {name: [getattr(f, name) for f in found] for name in ("kind", "found", "fix")}
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String()))
        with replaced_whole(args.output) as part:
            write_csv(frame, part)
    number = len(found)
    report(f"{counted(number, 'finding')} in {args.results}")
    return 1 if found and args.strict else 0
