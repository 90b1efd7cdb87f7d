"""What several subcommands take alike: the settings file, and how the engine runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from closerlook_common.console.argument_types import whole_number

if TYPE_CHECKING:
    from analyze.evaluate.engine import Running
    from analyze.settings import Settings


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, the file of settings."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="TOML",
        help="options in place of the study's defaults ('analyze settings' prints them)",
    )


def add_bootstrap(
    parser: argparse.ArgumentParser,
    text: str = "N resamples for numbers that have no other interval: plugged-in metrics, means over frames of videos",
) -> None:
    """Add ``--bootstrap``, which changes the settings (``settings_of``)."""
    parser.add_argument("--bootstrap", type=whole_number(0), metavar="N", help=text)


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings of ``--config``, with what ``--bootstrap`` says in their place."""
    from analyze.settings import read_settings

    return with_bootstrap(args, read_settings(args.config))


def with_bootstrap(args: argparse.Namespace, settings: Settings) -> Settings:
    """Return settings with what ``--bootstrap`` and ``--seed`` say in their place."""
    given = {"replicates": args.bootstrap, "seed": getattr(args, "seed", None)}
    changes = {name: value for name, value in given.items() if value is not None}
    return settings.updated("bootstrap", **changes) if changes else settings


def add_engine(parser: argparse.ArgumentParser, usual: str = "number of cores", what: str = "models") -> None:
    """Add ``--jobs``, ``--fresh``, ``--engine`` and ``--address``."""
    parser.add_argument("--jobs", type=whole_number(1), help=f"{what} at a time (default: {usual})")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help=f"ray spreads the {what} over a cluster (extra ray)",
    )
    parser.add_argument("--address", default="", metavar="ADDRESS", help="of the Ray cluster (default: the local one)")


def running_of(
    args: argparse.Namespace, progress: Callable[[str, int, int], None], *, processes: bool = False
) -> Running:
    """Return how the engine runs, from the options of ``add_engine``; ``processes`` as in ``Running``."""
    from analyze.evaluate.engine import Running

    return Running(jobs=args.jobs, engine=args.engine, processes=processes, address=args.address, progress=progress)
