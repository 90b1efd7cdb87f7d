"""The command line of the first stage: ``extract``."""

from __future__ import annotations

from collections.abc import Sequence

from cache_schema.console.command_line import Command, run_command

COMMANDS = {
    "run": Command("extract.commands.run", "run the models of a list over datasets (the default command)"),
    "status": Command("extract.commands.status", "models x datasets of a cache: sealed, failed, missing"),
    "plan": Command("extract.commands.plan", "what a study would run, what is there already, and what it costs"),
    "models": Command("extract.commands.models", "the models that can be named, with group, source and licence"),
    "datasets": Command("extract.commands.datasets", "find and check the datasets on disk"),
    "miniature": Command("extract.commands.miniature", "build the built-in miniature study"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``extract``; returns the exit code."""
    return run_command(
        "extract",
        "Run every model once over every dataset and keep logits, features, labels and heads.",
        COMMANDS,
        argv,
        default="run",
    )
