"""Explain a file that ``extract`` reads: 'extract help models' prints the grammar of model lists.

Without TOPIC, list the topics.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import NamedTuple


class Topic(NamedTuple):
    """A topic: the module with ``text() -> str``, and its line in the list of topics."""

    module: str
    summary: str


TOPICS: Mapping[str, Topic] = {
    "models": Topic("extract.commands.help_models", "model lists: one model a line, its options, your own weights"),
    "datasets": Topic("extract.commands.help_datasets", "datasets.toml: folders, manifests, shards, classes"),
}
"""Topics by name; a module is imported when its topic is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help=", ".join(TOPICS))


def run(args: argparse.Namespace) -> int:
    """Print a topic, or the list of topics."""
    from closerlook_common.errors import UserError, nearest

    if args.topic is None:
        width = max(map(len, TOPICS))
        print("topics:\n" + "\n".join(f"  {name:<{width}}  {topic.summary}" for name, topic in TOPICS.items()))
        print("\n'extract help TOPIC' prints one; 'extract COMMAND --help' lists a command's options.")
        return 0
    if args.topic not in TOPICS:
        raise UserError(f"no help topic {args.topic!r}{nearest(args.topic, TOPICS, list_all=True)}")
    print(importlib.import_module(TOPICS[args.topic].module).text().strip("\n"))
    return 0
