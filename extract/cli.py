"""The command line of the first stage: ``extract``."""

from __future__ import annotations

from collections.abc import Sequence

from closerlook_common.console.command_line import Command, run_command
from extract.plugin_kinds import REGISTRIES

COMMANDS = {
    "run": Command("extract.commands.run", "run the models of a list over datasets (the default command)"),
    "status": Command("extract.commands.status", "models x datasets of a cache: sealed, failed, missing"),
    "plan": Command("extract.commands.plan", "what a study would run, what is there already, and what it costs"),
    "models": Command("extract.commands.models", "the models that can be named, with group, source and licence"),
    "datasets": Command("extract.commands.datasets", "find and check the datasets on disk"),
    "help": Command("extract.commands.help", "explain a file that extract reads, such as model lists"),
}


DESCRIPTION = "Run every model once over every dataset and keep logits, features, labels and heads."
DEFAULT = "run"
"""The command that is meant where the first word is an option."""


def main(argv: Sequence[str] | None = None, *, prog: str = "extract") -> int:
    """Run ``extract``; returns the exit code."""
    return run_command(prog, DESCRIPTION, COMMANDS, argv, default=DEFAULT, registries=REGISTRIES)
