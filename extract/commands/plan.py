"""What a study would run: models x datasets, stores done and missing, disk, and device hours with their basis."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from extract.commands.run import add_arguments as add_run_arguments

    parser.add_argument("study_file", metavar="STUDY", help="a study file, or @closer-look, @holistic, @miniature")
    parser.add_argument("--rate", type=float, metavar="N", help="images a second of a model that was not measured yet")
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns 1 where a model or dataset cannot be used."""
    from extract.session import run_plan

    return run_plan(args)
