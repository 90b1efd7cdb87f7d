"""Rows of other commands that were computed while a dataset had another role: removed, and reported."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from analyze.results.joining import all_rows, write_all
from closerlook_common.console.terminal import counted
from closerlook_common.user_cache import locked

FROM_CARDS = ("metrics", "prompts", "factors")
"""Commands whose rows take the role of a dataset from its card, and whose numbers depend on it."""


def remove_other_roles(path: str | Path, new: pl.DataFrame, *, command: str) -> list[str]:
    """Remove from a result table what other commands computed while a dataset had another role than in new rows.

    Parameters
    ----------
    path
        Of the table; nothing is done where there is none.
    new
        Rows that were computed now.
    command
        That computed them.

    Returns
    -------
    list of str
        What was removed, and what should be run again, one line a command and dataset.
    """
    path = Path(path)
    if not path.is_file():
        return []
    now = dict(new.filter(pl.col("dataset") != "", pl.col("role") != "").select("dataset", "role").unique().rows())
    if not now:
        return []
    with locked(path):
        return _removed(path, now, command)


def _removed(path: Path, now: dict[str, str], command: str) -> list[str]:
    table = all_rows(path)
    current = pl.col("dataset").replace_strict(now, default="", return_dtype=pl.String)
    differs = (current != "") & (pl.col("role") != "") & (pl.col("role") != current)
    computed = differs & pl.col("command").is_in(FROM_CARDS) & (pl.col("command") != command)
    parts = table.filter(computed).partition_by("command", "dataset", "role", as_dict=True)
    lines = [
        f"{counted(len(part), 'row')} of 'analyze {name}' on {dataset} removed: its role was {role} and is now"
        f" {now[str(dataset)]}; run 'analyze {name}' again"
        for (name, dataset, role), part in parts.items()
    ]
    if parts:
        write_all(table.filter(~computed), path)
    detected = table.filter(differs, pl.col("command") == "ood")["dataset"].unique().sort()
    return [
        *sorted(lines),
        *(
            f"{name} has rows of 'analyze ood', and its role is now {now[name]}: run 'analyze ood' again"
            for name in detected
        ),
    ]
