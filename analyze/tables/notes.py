"""What a reader must know to compare the numbers of one column: notes printed under their own table."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl


class Note(str):
    """What a reader must know to compare the numbers of some columns.

    Attributes
    ----------
    text
        The note, without the columns' metrics.
    metrics
        Key of each column that it is about -> its metric.
    """

    text: str
    metrics: dict[tuple[str, ...], str]

    @classmethod
    def of(cls, text: str, metrics: dict[tuple[str, ...], str]) -> Note:
        """Return the note on some columns."""
        note = cls(f"{_listed(list(dict.fromkeys(metrics.values())))}: {text}")
        note.text, note.metrics = text, metrics
        return note

    def about(self, shown: Collection[tuple[str, ...]]) -> str:
        """Return what it says of the columns of some keys, empty where it is about others."""
        kept = {key: metric for key, metric in self.metrics.items() if key in shown}
        return Note.of(self.text, kept) if kept else ""


def notes_on(part: pl.DataFrame, key: list[str], rows: list[str]) -> tuple[str, ...]:
    """Say which columns hold numbers of different kinds (``auroc`` of ``mcm`` and of ``msp``)."""
    notes = []
    for column in ("score", "calibrator", "head", "subset", "options", "id_dataset"):
        if column in key or column in rows:
            continue
        kinds: dict[str, dict[tuple[str, ...], str]] = {}
        for column_key, cells in part.group_by(key, maintain_order=True):
            counts = cells[column].value_counts(sort=True)
            if column == "head" and len(counts.filter(pl.col(column) != "")) < 2:
                continue  # classifiers and zero-shot models of one prompt set: as expected
            if len(counts) > 1:
                text = ", ".join(f"{value or 'none'} in {count}" for value, count in counts.rows())
                kinds.setdefault(text, {})[tuple(map(str, column_key))] = str(cells["metric"][0])
        notes += [Note.of(f"{column} is {text} rows", metrics) for text, metrics in kinds.items()]
    return tuple(notes)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
