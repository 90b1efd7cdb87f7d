"""Options of commands that score OOD detectors."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analyze.ood.inputs import OodOptions
    from analyze.settings import Settings
    from cache_schema.reading.cache import Cache


def add_detector_options(parser: argparse._ActionsContainer) -> None:
    """Add what detectors are fitted on and scored with."""
    parser.add_argument("--id", metavar="NAME", help="in-distribution set (default: the only one of role id)")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="training set whose reference stores to fit on (default: the only one; 'none' for none)",
    )
    parser.add_argument("--near", default="", metavar="NAMES", help="near OOD sets (default: what the datasets say)")
    parser.add_argument("--far", default="", metavar="NAMES", help="far OOD sets (default: what the datasets say)")
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
    parser.add_argument(
        "--negatives", default="", metavar="SPACE[:SHARE]",
        help="class space of NegLabel's negative labels; with a share, those furthest from the classes (the authors'"
        " code: 0.15)",
    )  # fmt: skip


def words(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def detector_options(
    args: argparse.Namespace,
    cache: Cache,
    settings: Settings,
    *,
    models: Sequence[str],
    full_spectrum: Sequence[str] | None = None,
    explicit: bool,
) -> OodOptions:
    """Return checked options from a command line; ``explicit`` as of ``analyze.ood.choices.checked``."""
    from analyze.ood.choices import options_of

    return options_of(
        cache,
        settings,
        id=args.id,
        reference=args.reference,
        detectors=None if args.detectors == "all" else words(args.detectors),
        near=words(args.near),
        far=words(args.far),
        full_spectrum=full_spectrum,
        validation=args.validation or "",
        sweep=args.sweep,
        defaults=args.defaults,
        prompts=args.prompts,
        negatives=args.negatives,
        models=models,
        explicit=explicit,
    )
