"""Post-hoc OOD detectors from features, head and a reference of the training set; no model is loaded.

    analyze ood CACHE --id imagenet-val --reference imagenet-train --detectors all -o results.parquet
    analyze ood CACHE --id imagenet-val --list          which can run on which models, and why not
    analyze ood --list                                  which there are, and what each needs

Rows are added to the table, or replace those of the same variant. Models whose rows are there already, from the same
stores and options, are left alone; every model's rows are written as soon as they are done. Exit code 1 where a
model failed as a whole.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyze.ood.inputs import OodOptions
    from cache_schema.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze ood``."""
    parser.add_argument("cache", nargs="?", help="folder of the cache")
    parser.add_argument("--id", metavar="NAME", help="in-distribution set (default: the only one of role id)")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="training set whose reference stores to fit on (default: the only one; 'none' for none)",
    )
    parser.add_argument("--detectors", default="all", metavar="NAMES", help="comma-separated (default: all)")
    parser.add_argument("--near", default="", metavar="NAMES", help="near OOD sets (default: what the datasets say)")
    parser.add_argument("--far", default="", metavar="NAMES", help="far OOD sets (default: what the datasets say)")
    parser.add_argument(
        "--full-spectrum",
        metavar="NAMES",
        help="shifted sets that join the in-distribution rows: names, 'all' (default) or 'none'",
    )
    parser.add_argument(
        "--validation",
        metavar="NAME[:SHARE]",
        help="in-distribution rows to fit on; a share of the --id set is left out of the evaluation",
    )
    parser.add_argument(
        "--sweep", default="", metavar="NAME", help="choose hyper-parameters on this OOD set (needs --validation)"
    )
    parser.add_argument("--defaults", default="openood", choices=("openood", "paper"), help="set of hyper-parameters")
    parser.add_argument("--prompts", metavar="SET", help="prompt set of zero-shot heads (default: the default one)")
    parser.add_argument("--negatives", default="", metavar="SPACE", help="class space of NegLabel's negative labels")
    parser.add_argument("--models", metavar="PATTERNS", help="models, comma-separated, * and ? allowed")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.parquet"), help="result table (Parquet)")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")
    said = "only say which detectors can run, and why not; without a cache, which there are"
    parser.add_argument("--list", action="store_true", help=said)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _options(args: argparse.Namespace, cache: Cache) -> OodOptions:
    from analyze.detectors import DETECTORS, get
    from analyze.ood.choices import checked, in_distribution_set
    from analyze.ood.inputs import OodOptions
    from cache_schema.errors import UserError

    validation = None
    if args.validation:
        name, colon, share = args.validation.rpartition(":")
        if not colon:
            name, share = args.validation, "1"
        try:
            validation = (name, float(share))
        except ValueError:
            raise UserError(f"--validation {args.validation}: the share after the colon must be a number") from None
    detectors = tuple(DETECTORS) if args.detectors == "all" else _words(args.detectors)
    for detector in detectors:
        get(detector, defaults=args.defaults)
    spectrum = None if args.full_spectrum in (None, "all") else _words(args.full_spectrum.replace("none", ""))
    options = OodOptions(
        id_dataset=args.id or in_distribution_set(cache),
        reference=args.reference,
        detectors=detectors,
        near=_words(args.near),
        far=_words(args.far),
        full_spectrum=spectrum,
        validation=validation,
        sweep=args.sweep,
        defaults=args.defaults,
        prompt_set=args.prompts,
        negatives=args.negatives,
        models=_words(args.models) or None,
    )
    return checked(cache, options, explicit=args.detectors != "all" and not args.list)


def run(args: argparse.Namespace) -> int:
    """Run ``analyze ood``."""
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.ood import availability, is_done, merge, models_of, score_model
    from analyze.results import read_results, write_results
    from analyze.tables.detectors import availability_table, catalogue
    from cache_schema.errors import CloserlookError, UserError

    if args.cache is None:
        if not args.list:
            raise UserError("name the cache: analyze ood CACHE ('analyze ood --list' tells the detectors)")
        Console().print(catalogue())
        return 0
    cache = cache_schema.open_cache(args.cache)
    options = _options(args, cache)
    if args.list:
        found = availability(cache, options)
        title = f"detectors on {options.id_dataset}: {len(found)} models"
        Console().print(availability_table(title, found, options.detectors))
        return 0
    console = Console(stderr=True)
    table = read_results(args.output) if args.output.exists() else None
    failures: dict[str, str] = {}
    added = unchanged = missing = 0
    names = models_of(cache, options)
    with model_progress(console) as progress:
        for number, name in enumerate(names):
            progress(name, number, len(names))
            try:
                if not args.fresh and is_done(table, cache, name, options):
                    unchanged += 1
                    continue
                rows = score_model(cache, name, options)
            except (CloserlookError, OSError) as error:
                failures[name] = str(error)
                continue
            added += len(rows)
            missing += len({row.score for row in rows if row.reason})
            table = merge(table, rows)
            write_results(table, args.output)
        progress("", len(names), len(names))
    told = f"{added} rows added to {args.output}"
    if unchanged:
        told += f"; {unchanged} of {len(names)} models unchanged"
    if missing:
        told += f"; {missing} detectors could not run on a model (column 'reason', or --list)"
    console.print(told, highlight=False, soft_wrap=True)
    for name, reason in failures.items():
        console.print(f"[red]failed[/red] {name}: {reason}", highlight=False, soft_wrap=True)
    return 1 if failures else 0
