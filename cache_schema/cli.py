"""The command line of the cache: ``python -m cache_schema``."""

from __future__ import annotations

from collections.abc import Sequence

from closerlook_common.console.command_line import Command, run_command

COMMANDS = {
    "show": Command("cache_schema.commands.show", "what a cache or a store holds, as a table"),
    "check": Command("cache_schema.commands.check", "check every rule of SPEC.md and every digest"),
    "convert": Command("cache_schema.commands.convert", "Zarr <-> HDF5, with equal digests"),
    "merge": Command("cache_schema.commands.merge", "join references of disjoint parts of a training set"),
    "dataset": Command("cache_schema.commands.dataset", "the role of each dataset, and how to change it"),
    "import": Command("cache_schema.commands.import_file", "make a store from your own .npz, CSV or Parquet file"),
    "push": Command("cache_schema.commands.push", "copy a cache's stores to a remote place, verified"),
    "publish": Command("cache_schema.commands.publish", "copy a cache with a card, licences checked, and list it"),
    "find": Command("cache_schema.commands.find", "search a list of published caches"),
    "pull": Command("cache_schema.commands.pull", "copy stores from a remote cache, verified"),
}


DESCRIPTION = "Look at, check and convert stores of model outputs."


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m cache_schema") -> int:
    """Run ``python -m cache_schema``; returns the exit code."""
    return run_command(prog, DESCRIPTION, COMMANDS, argv)
