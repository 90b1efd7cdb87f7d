"""The command line of the second stage: ``analyze``."""

from __future__ import annotations

from collections.abc import Sequence

from analyze.plugin_kinds import REGISTRIES
from closerlook_common.console.command_line import Command, run_command

COMMANDS = {
    "metrics": Command("analyze.commands.metrics", "every number of every model and dataset, as one long table"),
    "settings": Command("analyze.commands.settings", "print every option and its default, as a settings file"),
    "table": Command("analyze.commands.table", "print a result table; write Markdown, LaTeX, CSV, HTML"),
    "show": Command("analyze.commands.show", "one model's card: what it is and how it did"),
    "compare": Command("analyze.commands.compare", "paired differences of two models, with intervals"),
    "summarize": Command("analyze.commands.summarize", "per-image statistics: a cache small enough for a laptop"),
    "factors": Command("analyze.commands.factors", "accuracy and calibration by visual factor"),
    "ood": Command("analyze.commands.ood", "post-hoc OOD detectors from features, head and reference"),
    "prompts": Command("analyze.commands.prompts", "metrics of every stored prompt set, without the model"),
    "probe": Command("analyze.commands.probe", "linear and nearest-neighbour heads for encoders without one"),
    "retrieval": Command("analyze.commands.retrieval", "image-text retrieval recall@k"),
    "trends": Command("analyze.commands.trends", "correlations, fits and effective robustness over models"),
    "audit": Command("analyze.commands.audit", "what a reviewer would object to in a table, with fixes"),
    "import-results": Command("analyze.commands.import_results", "join published result tables"),
    "figures": Command("analyze.commands.figures", "the paper's figures, each with its numbers as CSV"),
    "report": Command("analyze.commands.report", "one HTML file to explore the results in"),
}


DESCRIPTION = "Recompute any number, table or figure from the stores; no model is loaded."


def main(argv: Sequence[str] | None = None, *, prog: str = "analyze") -> int:
    """Run ``analyze``; returns the exit code."""
    return run_command(prog, DESCRIPTION, COMMANDS, argv, registries=REGISTRIES)
