"""The command line of the second stage: ``analyze``."""

from __future__ import annotations

from collections.abc import Sequence

from cache_schema.console.command_line import Command, run_command

COMMANDS = {
    "metrics": Command("analyze.commands.metrics", "every number of every model and dataset, as one long table"),
    "table": Command("analyze.commands.table", "print a result table; write Markdown, LaTeX, CSV, HTML"),
    "show": Command("analyze.commands.show", "one model's card: what it is and how it did"),
    "compare": Command("analyze.commands.compare", "paired differences of two models, with intervals"),
    "summarize": Command("analyze.commands.summarize", "per-image statistics: a cache small enough for a laptop"),
    "factors": Command("analyze.commands.factors", "accuracy and calibration by visual factor"),
    "ood": Command("analyze.commands.ood", "post-hoc OOD detectors from features, head and reference"),
    "prompts": Command("analyze.commands.prompts", "zero-shot numbers of every stored prompt set, without the model"),
    "retrieval": Command("analyze.commands.retrieval", "image-text retrieval recall@k"),
    "trends": Command("analyze.commands.trends", "correlations, fits and effective robustness over models"),
    "import-results": Command("analyze.commands.import_results", "join published result tables"),
    "figures": Command("analyze.commands.figures", "the paper's figures, each with its numbers beside it"),
    "report": Command("analyze.commands.report", "one HTML file to explore the results in"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``analyze``; returns the exit code."""
    return run_command(
        "analyze", "Recompute any number, table or figure from the stores; no model is loaded.", COMMANDS, argv
    )
