"""Print the study's defaults as TOML, with what each option means.

    analyze settings > analysis.toml
    analyze metrics CACHE --config analysis.toml

A settings file contains only the options that it changes.
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options: none."""


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from analyze.settings import defaults_text

    sys.stdout.write(defaults_text())
    return 0
