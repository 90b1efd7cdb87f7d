"""Print a result table: rows by columns, best marks, intervals; write it as CSV, Markdown, LaTeX or HTML.

A column that neither --rows nor --columns names gives one table for each of its values (one table a dataset). Variants
of a metric (score, calibrator, prompt set ...) become columns. Filter with --where:

    analyze table results.parquet --where metric=top1,ece,nll --where dataset=imagenet-val,imagenet-a --best
    analyze table results.parquet --where metric=top1,nll --best --cache CACHE      # marks by tests on the same images
    analyze table results.parquet --rows model --columns dataset --where metric=auroc --where score=msp,mcm
    analyze table results.parquet --columns factor --where metric=factor_accuracy --latex factors.tex
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from closerlook_common.console.argument_types import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze table``."""
    parser.add_argument("results", metavar="RESULTS", help="result table that 'analyze metrics' wrote (Parquet)")
    parser.add_argument("--rows", default="model", help="columns that label the rows, comma-separated (default: model)")
    parser.add_argument("--columns", default="metric", help="columns that label the columns (default: metric)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="keep only these rows; commas and wildcards allowed, KEY!=VALUE excludes; repeatable",
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="mark the best with all that are not distinguished from it (bold), and the next (underlined); intervals"
        " decide, or with --cache paired tests",
    )
    parser.add_argument(
        "--cache",
        metavar="CACHE",
        help="with --best: the cache that the table was made from; models are compared by paired tests on the same"
        " images, and notes under the table say which tests and which columns (top1, nll, brier; auroc, FPR and AUPR"
        " by scores without a fit)",
    )
    parser.add_argument("--intervals", action="store_true", help="show [low, high] behind the numbers")
    parser.add_argument(
        "--group-rows",
        nargs="?",
        const="group",
        default="",
        metavar="COLUMN",
        help="blocks of rows by this column of the cards (default when given: group)",
    )
    parser.add_argument(
        "--digits", type=whole_number(0, 17), metavar="N", help="decimals (default: 3; 1 with --percent)"
    )
    parser.add_argument("--percent", action="store_true", help="show accuracies and other fractions times 100")
    parser.add_argument("--sort", default="", metavar="COLUMN", help="sort rows by this column, best first")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="each number once: not its calibrated, held-out, by-factor, by-subset and by-option variants",
    )
    parser.add_argument(
        "--all-columns",
        action="store_true",
        help="in the terminal, print columns that do not fit as further tables",
    )
    for name in ("csv", "markdown", "latex", "html"):
        parser.add_argument(
            f"--{name}",
            metavar="FILE",
            help=f"also write it as {name} ('-': to standard output, instead of the table)",
        )


def run(args: argparse.Namespace) -> int:
    """Run ``analyze table``."""
    from analyze.results import read_results
    from analyze.results.meant import plain_numbers, usual_heads
    from analyze.results.selection import parse_where, select
    from analyze.tables import build_tables, split_names
    from analyze.tables.plain_options import plain_options
    from analyze.tables.writers import WRITERS, print_tables
    from closerlook_common.console.messages import report
    from closerlook_common.errors import UserError
    from closerlook_common.user_cache import replaced_whole

    if args.digits is not None and not 0 <= args.digits <= 12:
        raise UserError(f"--digits {args.digits}: give a number of decimals between 0 and 12")
    if args.cache is not None and not args.best:
        raise UserError("--cache is for --best: without it nothing is marked, and no predictions are read")
    where = parse_where(args.where)
    rows, columns = split_names(args.rows, "--rows"), split_names(args.columns, "--columns")
    results = select(read_results(args.results), where)
    if not {"head", "head!"} & {*where, *rows, *columns}:
        usual = usual_heads(results)
        if len(usual) < len(results):
            report("each model under its usual prompts; --where 'head=*' shows every prompt set")
        results = usual
    if not {"options", "options!"} & {*where, *rows, *columns}:
        results = plain_options(results)
    if args.plain:
        results = plain_numbers(results, keep=[key.removesuffix("!") for key in (*where, *rows, *columns)])
    tables = build_tables(
        results,
        rows=rows,
        columns=columns,
        best=args.best,
        intervals=args.intervals,
        group_rows=args.group_rows,
        digits=args.digits,
        percent=args.percent,
        sort=args.sort,
        cache=args.cache,
    )
    wanted = {name: getattr(args, name) for name in WRITERS if getattr(args, name)}
    if "-" not in wanted.values():
        from rich.console import Console

        print_tables(tables, Console(), all_columns=args.all_columns)
    for name, target in wanted.items():
        text = WRITERS[name](tables)
        if target == "-":
            sys.stdout.write(text)
            continue
        path = Path(target)
        with replaced_whole(path) as part:
            part.write_text(text, encoding="utf-8")
        report(f"wrote {path}")
    return 0
